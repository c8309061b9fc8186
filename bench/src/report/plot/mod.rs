//! Pictures, as SVG: no font and no library of the system is needed, neither here nor to look at them.

mod timeline;

pub(crate) use timeline::timeline;

use plotters::style::IntoFont;
use plotters::style::{Color, RGBColor, ShapeStyle, TextStyle};

/// Colours that are told apart, by those who see few of them too (Okabe and Ito's, and two greys).
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 140),
    RGBColor(180, 160, 20),
    RGBColor(90, 60, 140),
];
const GREY: RGBColor = RGBColor(120, 120, 120);

/// A colour for each of a list.
pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

pub(crate) fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&RGBColor(30, 30, 30))
}

fn filled(colour: RGBColor) -> ShapeStyle {
    colour.filled()
}

/// Why a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub(crate) struct NotDrawn(String);

pub(crate) fn not_drawn(error: impl std::fmt::Display) -> NotDrawn {
    NotDrawn(error.to_string())
}
