//! Throughput over the link: a panel for each state and kind of data, a line a contender.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::cell::Cell;
use super::{Axes, link_name};
use crate::report::plot::{NotDrawn, colour, not_drawn, text};
use crate::spec::{DataKind, Entrant, Size};

const PANEL_WIDTH: u32 = 380;
const PANEL_HEIGHT: u32 = 260;
/// A row of the legend, and a name in it.
const LEGEND_ROW: u32 = 18;
const LEGEND_COLUMN: u32 = 150;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture.
pub(crate) fn grid(
    axes: &Axes,
    contenders: &[Entrant],
    cells: &[Cell],
) -> Result<String, NotDrawn> {
    let (columns, rows) = (axes.data.len().max(1), axes.states.len().max(1));
    let width = PANEL_WIDTH * columns as u32;
    let names = (contenders.len() as u32).div_ceil(width / LEGEND_COLUMN);
    let legend_height = names * LEGEND_ROW + 14;
    let size = (width, legend_height + PANEL_HEIGHT * rows as u32);
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE).map_err(not_drawn)?;
        let (top, body) = root.split_vertically(legend_height);
        legend(&top, contenders)?;
        let panels = body.split_evenly((rows, columns));
        let places =
            axes.states.iter().flat_map(|&state| axes.data.iter().map(move |data| (state, data)));
        for ((state, data), panel) in places.zip(&panels) {
            draw(panel, axes, contenders, cells, state, data)?;
        }
        root.present().map_err(not_drawn)?;
    }
    Ok(picture)
}

/// Their names, each beside its line.
fn legend(area: &Area<'_>, contenders: &[Entrant]) -> Result<(), NotDrawn> {
    const COLUMN: i32 = LEGEND_COLUMN as i32;
    let columns = (area.dim_in_pixel().0 as i32 / COLUMN).max(1);
    for (index, who) in contenders.iter().enumerate() {
        let (column, row) = (index as i32 % columns, index as i32 / columns);
        let (x, y) = (column * COLUMN + 12, row * LEGEND_ROW as i32 + 16);
        let line = PathElement::new(vec![(x, y), (x + 22, y)], colour(index).stroke_width(3));
        area.draw(&line).map_err(not_drawn)?;
        area.draw_text(&who.to_string(), &text(13), (x + 28, y - 7)).map_err(not_drawn)?;
    }
    Ok(())
}

fn draw(
    panel: &Area<'_>,
    axes: &Axes,
    contenders: &[Entrant],
    cells: &[Cell],
    state: Size,
    data: &DataKind,
) -> Result<(), NotDrawn> {
    let lines: Vec<Vec<(f64, f64)>> =
        contenders.iter().map(|&who| line(axes, cells, state, data, who)).collect();
    let most = lines.iter().flatten().map(|&(_, y)| y).fold(1.0, f64::max);
    let last = axes.links.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("{state} of {data}, MB/s"), text(14))
        .margin(10)
        .x_label_area_size(22)
        .y_label_area_size(46)
        .build_cartesian_2d(-0.2..last + 0.2, 0.0..most * 1.05)
        .map_err(not_drawn)?;
    let name = |x: &f64| {
        let is_place = (x - x.round()).abs() < 0.01 && *x >= 0.0;
        let link = axes.links.get(x.round() as usize).filter(|_| is_place);
        link.map_or_else(String::new, |&link| link_name(link))
    };
    // Labels stand at whole numbers only where there are as many as that.
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(axes.links.len() + 1)
        .x_label_formatter(&name)
        .y_labels(5)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(text(12))
        .draw()
        .map_err(not_drawn)?;
    for (index, points) in lines.into_iter().enumerate() {
        let colour = colour(index);
        chart
            .draw_series(points.iter().map(|&at| Circle::new(at, 3, colour.filled())))
            .map_err(not_drawn)?;
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(not_drawn)?;
    }
    Ok(())
}

/// A contender's throughput at each link: the state over the downtime.
fn line(
    axes: &Axes,
    cells: &[Cell],
    state: Size,
    data: &DataKind,
    who: Entrant,
) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for (x, &link) in axes.links.iter().enumerate() {
        let of = |cell: &&Cell| {
            cell.place.state == state && cell.place.data == *data && cell.place.link == link
        };
        let entries = cells.iter().filter(of).flat_map(|cell| &cell.entries);
        for entry in entries.filter(|entry| entry.contender == who && entry.downtime_ns > 0) {
            points.push((x as f64, state.0 as f64 * 1e3 / entry.downtime_ns as f64));
        }
    }
    points
}
