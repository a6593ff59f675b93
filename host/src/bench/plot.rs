//! The roofline of a machine as SVG: kernels as dots, speed over operations per byte of weights.

use super::BenchError;
use super::kernels::{Figures, KernelFigures, Peak, Phase};
use super::labels::{self, Area, Places, Side};
use dair_core::kernels::Isa;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::ops::Range;

/// Width and height in pixels.
const SIZE: (u32, u32) = (1100, 720);
const FONT: &str = "sans-serif";
/// Font sizes as the crate counts them: [`FONT_UNIT`] per pixel.
const TITLE: f64 = 26.0;
const TEXT: f64 = 17.0;
const LABEL: f64 = 15.5;
const FONT_UNIT: f64 = 1.24;
/// Width of a letter over the height of its font, on the safe side.
const LETTER: f64 = 0.58;
const DOT_RADIUS: i32 = 5;
/// Further away than this, a line leads from a dot to its label.
const LEADER: i32 = 14;
/// One per instruction set, distinct for people who see colours differently. Source: Okabe and Ito, 2008.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

type Canvas<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Chart<'c, 's> = ChartContext<'c, SVGBackend<'s>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;
type Drawn = Result<(), Box<dyn Error>>;

/// Draws the kernels with all threads: one dot for each in decode and in prefill.
///
/// # Errors
/// Where the picture can't be drawn.
pub fn svg(title: &str, figures: &Figures) -> Result<String, BenchError> {
    let mut svg = String::new();
    let plot = Plot::of(figures);
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    plot.draw(&mut svg, &title).map_err(|error| BenchError::Plot(error.to_string()))?;
    Ok(svg)
}

/// What is drawn.
struct Plot<'f> {
    threads: usize,
    /// 10^9 bytes per second.
    bandwidth: f64,
    isas: Vec<Isa>,
    peaks: Vec<Peak>,
    dots: Vec<&'f KernelFigures>,
}

impl<'f> Plot<'f> {
    fn of(figures: &'f Figures) -> Self {
        let threads = figures.bandwidths.last().map_or(1, |bandwidth| bandwidth.threads);
        let is_drawn = |kernel: &&KernelFigures| kernel.threads == threads && kernel.phase != Phase::Cached;
        Self {
            threads,
            bandwidth: figures.bandwidth(threads).best,
            isas: figures.isas(),
            peaks: figures.peaks().into_iter().filter(|peak| peak.threads == threads).collect(),
            dots: figures.kernels.iter().filter(is_drawn).collect(),
        }
    }

    fn colour(&self, isa: Isa) -> RGBColor {
        let index = self.isas.iter().position(|known| *known == isa).unwrap_or(0);
        COLOURS[index % COLOURS.len()]
    }

    /// Operations per byte, and 10^9 operations per second, that the picture spans.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let x = self.dots.iter().map(|dot| dot.ops_per_byte);
        let y = self.dots.iter().map(|dot| dot.gop_per_s.median);
        let peak = self.peaks.iter().map(|peak| peak.gop_per_s).fold(0.0, f64::max);
        let (x_min, x_max) = (x.clone().fold(f64::MAX, f64::min), x.fold(0.0, f64::max));
        let y_min = y.fold(f64::MAX, f64::min).min(self.bandwidth * x_min);
        (x_min / 1.7..x_max * 3.0, y_min / 1.8..peak * 2.0)
    }

    fn draw(&self, svg: &mut String, machine_name: &str) -> Drawn {
        let canvas = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        canvas.fill(&WHITE)?;
        let title = fitting(machine_name, TITLE, SIZE.0 as i32 - 60);
        canvas.draw(&Text::new(title, (30, 18), (FONT, TITLE).into_font().color(&BLACK)))?;
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        let prefill = Phase::Prefill.tokens();
        let legend = format!("{threads}; filled dots: decode of one token, open dots: prefill of {prefill} tokens");
        canvas.draw(&Text::new(legend, (30, 48), (FONT, TEXT).into_font().color(&BLACK.mix(0.7))))?;

        let (x, y) = self.ranges();
        let area = canvas.margin(78, 20, 20, 30);
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(54)
            .y_label_area_size(70)
            .build_cartesian_2d(x.clone().log_scale().base(2.0), y.clone().log_scale().base(2.0))?;
        chart
            .configure_mesh()
            .x_desc("operations per byte of weights")
            .y_desc("Gop/s: 10⁹ multiplications and additions per second")
            .axis_desc_style((FONT, TEXT))
            .label_style((FONT, TEXT))
            .x_labels(16)
            .y_labels(12)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .bold_line_style(BLACK.mix(0.12))
            .light_line_style(TRANSPARENT)
            .draw()?;
        let (left_top, right_bottom) = (chart.backend_coord(&(x.start, y.end)), chart.backend_coord(&(x.end, y.start)));
        let bounds = Area { left: left_top.0, top: left_top.1, right: right_bottom.0, bottom: right_bottom.1 };
        let mut labels = Labels { canvas: &canvas, places: Places::new(bounds) };
        let roofs = self.roofs(&x, &y);
        for Roof { line, colour, .. } in &roofs {
            let [from, to] = line.map(|point| chart.backend_coord(&point));
            labels.places.take_line(from, to);
            chart.draw_series([PathElement::new(line.to_vec(), colour.stroke_width(2))])?;
        }
        self.dots(&mut chart, &mut labels)?;
        for Roof { line, colour, text } in &roofs {
            labels.along(text, line.map(|point| chart.backend_coord(&point)), *colour)?;
        }
        canvas.present()?;
        Ok(())
    }

    /// The slope of memory, and per instruction set the height that it cuts off.
    fn roofs(&self, x: &Range<f64>, y: &Range<f64>) -> Vec<Roof> {
        let ridge = |peak: &Peak| peak.gop_per_s / self.bandwidth;
        let foot = x.start.max(y.start / self.bandwidth);
        let highest = self.peaks.iter().map(ridge).fold(foot, f64::max);
        let slope = [foot, highest].map(|x| (x, x * self.bandwidth));
        let text = format!("memory: {:.1} GB/s, best measured", self.bandwidth);
        let flat = |peak: &Peak| {
            let (product, height) = (peak.product, peak.gop_per_s);
            let pair = format!("{} × {}", product.weights, product.activations);
            Roof {
                line: [(ridge(peak).max(x.start), height), (x.end, height)],
                colour: self.colour(product.isa),
                text: format!("{}: {} Gop/s, best measured ({pair})", product.isa, short(height)),
            }
        };
        [Roof { line: slope, colour: BLACK, text }].into_iter().chain(self.peaks.iter().map(flat)).collect()
    }

    fn dots(&self, chart: &mut Chart<'_, '_>, labels: &mut Labels<'_, '_>) -> Drawn {
        for dot in &self.dots {
            let at = chart.backend_coord(&(dot.ops_per_byte, dot.gop_per_s.median));
            labels.places.take(Area::around(at, DOT_RADIUS + 2));
        }
        for dot in &self.dots {
            let (product, colour) = (dot.product, self.colour(dot.product.isa));
            let place = (dot.ops_per_byte, dot.gop_per_s.median);
            let style = if dot.phase == Phase::Decode { colour.filled() } else { colour.stroke_width(2) };
            chart.draw_series([Circle::new(place, DOT_RADIUS, style)])?;
            let speed = match dot.phase {
                Phase::Decode => format!("{} GB/s", short(dot.gb_per_s.median)),
                _ => format!("{} Gop/s", short(dot.gop_per_s.median)),
            };
            let text = format!("{} × {}, {speed}", product.weights, product.activations);
            labels.beside(&text, chart.backend_coord(&place), colour)?;
        }
        Ok(())
    }
}

/// What no kernel exceeds.
struct Roof {
    /// Operations per byte, and 10^9 operations per second, of both ends.
    line: [(f64, f64); 2],
    colour: RGBColor,
    text: String,
}

/// Texts beside what they name.
struct Labels<'c, 's> {
    canvas: &'c Canvas<'s>,
    places: Places,
}

impl Labels<'_, '_> {
    /// Writes a text near to a point, with a line to it where it is not beside it; not at all where there is no room.
    fn beside(&mut self, text: &str, at: (i32, i32), colour: RGBColor) -> Drawn {
        let Some(area) = self.places.place(at, extent(text), Side::Right, i32::MAX) else { return Ok(()) };
        let end = area.nearest(at);
        if (end.0 - at.0).abs().max((end.1 - at.1).abs()) > LEADER {
            self.canvas.draw(&PathElement::new(vec![at, end], colour.mix(0.5)))?;
            self.places.take_line(at, end);
        }
        self.write(text, area, at, colour)
    }

    /// Writes a text above a line or below it, as near to its end as possible.
    fn along(&mut self, text: &str, [from, to]: [(i32, i32); 2], colour: RGBColor) -> Drawn {
        for at in labels::points(to, from) {
            if let Some(area) = self.places.place(at, extent(text), Side::Above, LEADER) {
                return self.write(text, area, at, colour);
            }
        }
        self.beside(text, to, colour)
    }

    fn write(&self, text: &str, area: Area, at: (i32, i32), colour: RGBColor) -> Drawn {
        // Estimated widths are generous: the end that is near to the point shows where the text belongs.
        let (x, anchor) = if area.right <= at.0 { (area.right, HPos::Right) } else { (area.left, HPos::Left) };
        let style = (FONT, LABEL).into_font().color(&colour).pos(Pos::new(anchor, VPos::Top));
        Ok(self.canvas.draw(&Text::new(text.to_owned(), (x, area.top), style))?)
    }
}

/// Room of a label.
fn extent(text: &str) -> (i32, i32) {
    (width(text, LABEL), (LABEL / FONT_UNIT * 1.3) as i32)
}

/// About the width of a text in pixels.
fn width(text: &str, font: f64) -> i32 {
    (text.chars().count() as f64 * font / FONT_UNIT * LETTER).ceil() as i32
}

/// A text that is cut to a width.
fn fitting(text: &str, font: f64, most: i32) -> String {
    if width(text, font) <= most {
        return text.to_owned();
    }
    let letters = (f64::from(most) / (font / FONT_UNIT * LETTER)) as usize;
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// A number with three digits or as many as it has before the point.
fn short(value: f64) -> String {
    let digits = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::Rate;
    use super::super::bandwidth::Bandwidth;
    use super::super::kernels::Product;
    use super::*;
    use dair_core::quant::DType;

    /// Kernels of as many instruction sets as one processor has, all of them with 2 threads.
    fn figures() -> Figures {
        let rate = |value: f64| Rate { median: value, best: value * 1.1, rounds: 3 };
        let pairs = [(DType::Q40, DType::Q80), (DType::Q80, DType::Q80), (DType::Q80, DType::F32)];
        let mut kernels = Vec::new();
        for (speed, isa) in (1..).zip(Isa::ALL.into_iter().take(4)) {
            for (weights, activations) in pairs {
                for (phase, ops_per_byte, gop) in [(Phase::Decode, 3.0, 30.0), (Phase::Prefill, 700.0, 200.0)] {
                    let (product, gop) = (Product { isa, weights, activations }, rate(gop * f64::from(speed)));
                    let gb_per_s = gop.scaled(1.0 / ops_per_byte);
                    kernels.push(KernelFigures { product, phase, threads: 2, ops_per_byte, gop_per_s: gop, gb_per_s });
                }
            }
        }
        let bandwidths = [1, 2].map(|threads| Bandwidth { threads, gb_per_s: rate(20.0 * threads as f64) }).to_vec();
        Figures { buffer_bytes: 1 << 28, bandwidths, kernels }
    }

    #[test]
    fn the_picture_is_xml_with_a_dot_and_a_label_per_kernel() {
        let figures = figures();
        let svg = svg("A & B <processor>\u{7}", &figures).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let named = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
        assert_eq!(named("circle"), figures.kernels.len());
        let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
        let shows =
            |part: &str| texts.iter().filter(|node| node.text().is_some_and(|text| text.contains(part))).count();
        assert_eq!(shows("A & B <processor>"), 1);
        assert_eq!(shows(" × "), figures.kernels.len() + figures.isas().len());
        assert_eq!(shows("best measured"), 1 + figures.isas().len());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.25, 0.5, 1.0, 3.556, 17.25, 99.96, 455.1, 2048.0].map(short);
        assert_eq!(texts, ["0.25", "0.5", "1", "3.56", "17.2", "100", "455", "2048"]);
        assert_eq!((fitting("abcdef", 12.4, 30), fitting("abc", 12.4, 30)), ("abcd…".to_owned(), "abc".to_owned()));
    }
}
