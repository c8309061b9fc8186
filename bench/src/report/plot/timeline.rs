//! One migration: what each stage, device and stream did when.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{GREY, NotDrawn, colour, filled, not_drawn, text};
use crate::report::table::duration;
use crate::report::timeline::{Lane, Timeline};

const WIDTH: i32 = 1200;
const NAMES: i32 = 190;
/// What is said at the lanes' ends.
const SUMS: i32 = 80;
const LANE: i32 = 22;
const HEAD: i32 = 54;
const FOOT: i32 = 34;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture. Time goes to the right; 0 is the call that stopped the first device.
pub(crate) fn timeline(title: &str, of: &Timeline) -> Result<String, NotDrawn> {
    let height = HEAD + LANE * of.lanes.len() as i32 + FOOT;
    let mut picture = String::new();
    {
        let size = (WIDTH as u32, height as u32);
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE).map_err(not_drawn)?;
        root.draw_text(title, &text(15), (10, 10)).map_err(not_drawn)?;
        durations(&root, of)?;
        let scale = Scale { from: of.from_ns, to: of.to_ns.max(of.from_ns + 1) };
        ruler(&root, &scale, height)?;
        for (index, lane) in of.lanes.iter().enumerate() {
            draw(&root, &scale, lane, HEAD + LANE * index as i32)?;
        }
        root.present().map_err(not_drawn)?;
    }
    Ok(picture)
}

/// What each stage took, in its colour: the first lane's bars may be too narrow for their names.
fn durations(root: &Area<'_>, of: &Timeline) -> Result<(), NotDrawn> {
    let mut x = 10;
    for span in of.lanes.first().into_iter().flat_map(|stages| &stages.spans) {
        let took = u64::try_from(span.to_ns - span.from_ns).unwrap_or(0);
        let words = format!("{} {}", span.name, duration(took));
        let colour = colour(span.colour);
        root.draw_text(&words, &text(12).color(&colour), (x, 30)).map_err(not_drawn)?;
        x += words.chars().count() as i32 * 7 + 16;
    }
    Ok(())
}

/// From nanoseconds to pixels.
struct Scale {
    from: i64,
    to: i64,
}

impl Scale {
    fn x(&self, ns: i64) -> i32 {
        let part = (ns - self.from) as f64 / (self.to - self.from) as f64;
        NAMES + (part.clamp(0.0, 1.0) * f64::from(WIDTH - NAMES - SUMS)) as i32
    }
}

fn ruler(root: &Area<'_>, scale: &Scale, height: i32) -> Result<(), NotDrawn> {
    let step = step((scale.to - scale.from) / 8);
    let mut at = scale.from.div_euclid(step) * step;
    while at <= scale.to {
        if at >= scale.from {
            let x = scale.x(at);
            let colour = if at == 0 { BLACK } else { GREY };
            let line = PathElement::new(vec![(x, HEAD - 6), (x, height - FOOT)], colour.mix(0.5));
            root.draw(&line).map_err(not_drawn)?;
            let sign = if at < 0 { "-" } else { "" };
            let label = match at {
                0 => "stop".to_owned(),
                at => format!("{sign}{}", duration(at.unsigned_abs())),
            };
            root.draw_text(&label, &text(11), (x + 2, height - FOOT + 6)).map_err(not_drawn)?;
        }
        at += step;
    }
    Ok(())
}

/// The round number at or above: 1, 2 or 5 of a power of ten.
fn step(least: i64) -> i64 {
    let mut step = 1;
    loop {
        for times in [1, 2, 5] {
            if step * times >= least {
                return step * times;
            }
        }
        step *= 10;
    }
}

fn draw(root: &Area<'_>, scale: &Scale, lane: &Lane, y: i32) -> Result<(), NotDrawn> {
    root.draw_text(&lane.name, &text(12), (10, y + 4)).map_err(not_drawn)?;
    let bottom = y + LANE - 4;
    for span in &lane.spans {
        let (left, right) = (scale.x(span.from_ns), scale.x(span.to_ns));
        let bar = [(left, y + 2), (right.max(left + 1), bottom)];
        let style = filled(colour(span.colour));
        root.draw(&Rectangle::new(bar, style)).map_err(not_drawn)?;
        // About as wide as its letters.
        if right - left > span.name.chars().count() as i32 * 7 + 4 {
            let style = text(11).color(&WHITE);
            root.draw_text(&span.name, &style, (left + 3, y + 4)).map_err(not_drawn)?;
        } else if lane.names_all {
            root.draw_text(&span.name, &text(9), (right + 3, y + 5)).map_err(not_drawn)?;
        }
    }
    // Bytes: a bar in each slice of time, as high as its share of the lane's fastest slice.
    for part in &lane.bytes {
        let high = (f64::from(LANE - 6) * part.share) as i32;
        if high > 0 {
            let (left, right) = (scale.x(part.from_ns), scale.x(part.to_ns));
            let bar = [(left, bottom - high), (right.max(left + 1), bottom)];
            root.draw(&Rectangle::new(bar, filled(colour(lane.colour)))).map_err(not_drawn)?;
        }
    }
    if let Some(words) = &lane.words {
        let style = text(11).color(&GREY);
        root.draw_text(words, &style, (WIDTH - SUMS + 8, y + 4)).map_err(not_drawn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulers_have_round_numbers() {
        assert_eq!([step(1), step(3), step(70), step(1200)], [1, 5, 100, 2000]);
    }
}
