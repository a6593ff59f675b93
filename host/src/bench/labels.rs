//! Finds a free place for each label of a picture, near to what it names. In pixels, `y` grows downwards.

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub left: i32,
    /// Upper edge.
    pub top: i32,
    /// Right edge, not included.
    pub right: i32,
    /// Lower edge, not included.
    pub bottom: i32,
}

impl Area {
    /// The square around a point.
    pub fn around((x, y): (i32, i32), radius: i32) -> Self {
        Self { left: x - radius, top: y - radius, right: x + radius + 1, bottom: y + radius + 1 }
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn lies_in(&self, outer: &Self) -> bool {
        outer.left <= self.left && outer.top <= self.top && self.right <= outer.right && self.bottom <= outer.bottom
    }

    /// The point of this area that is nearest to another one.
    pub fn nearest(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }
}

/// Where a label goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Beside a dot.
    Right,
    /// Above a line.
    Above,
}

/// The free parts of a picture.
#[derive(Clone, Debug)]
pub struct Places {
    bounds: Area,
    taken: Vec<Area>,
    labels: Vec<Area>,
}

impl Places {
    /// Labels stay within `bounds`.
    pub fn new(bounds: Area) -> Self {
        Self { bounds, taken: Vec::new(), labels: Vec::new() }
    }

    /// Keeps labels away from an area.
    pub fn take(&mut self, area: Area) {
        self.taken.push(area);
    }

    /// Keeps labels away from a line.
    pub fn take_line(&mut self, from: (i32, i32), to: (i32, i32)) {
        self.taken.extend(points(from, to).map(|at| Area::around(at, 3)));
    }

    /// Takes room of `width × height` for what names the point `at`: as near as possible and within `reach`, where
    /// possible with no other label between. `None` where all is full.
    pub fn place(&mut self, at: (i32, i32), (width, height): (i32, i32), side: Side, reach: i32) -> Option<Area> {
        let reach = reach.min(self.bounds.right - self.bounds.left);
        let areas = || {
            let rings = (1..).map(|ring| ring * 8).take_while(|distance| *distance <= reach);
            let areas = rings.flat_map(|distance| around(at, (width, height), distance, side));
            areas.filter(|area| self.is_free(area))
        };
        let area = areas().find(|area| self.is_in_sight(area, at)).or_else(|| areas().next())?;
        self.labels.push(area);
        Some(area)
    }

    fn is_free(&self, area: &Area) -> bool {
        area.lies_in(&self.bounds) && !self.taken.iter().chain(&self.labels).any(|taken| taken.meets(area))
    }

    fn is_in_sight(&self, area: &Area, from: (i32, i32)) -> bool {
        let mut points = points(from, area.nearest(from)).map(|at| Area::around(at, 1));
        !points.any(|point| self.labels.iter().any(|label| label.meets(&point)))
    }
}

/// Points of a line, a few pixels apart.
pub fn points(from: (i32, i32), to: (i32, i32)) -> impl Iterator<Item = (i32, i32)> {
    let (width, height) = (to.0 - from.0, to.1 - from.1);
    let steps = width.abs().max(height.abs()) / 4 + 1;
    (0..=steps).map(move |step| (from.0 + width * step / steps, from.1 + height * step / steps))
}

/// Areas at about the same distance from a point, the preferred one first.
fn around((x, y): (i32, i32), (width, height): (i32, i32), distance: i32, side: Side) -> [Area; 10] {
    let (middle_x, middle_y) = (x - width / 2, y - height / 2);
    let (left, right) = (x - distance - width, x + distance);
    let (above, below) = (y - distance - height, y + distance);
    let half = distance / 2;
    let mut corners = [
        (right, middle_y),
        (left, middle_y),
        (right, middle_y - half),
        (right, middle_y + half),
        (left, middle_y - half),
        (left, middle_y + half),
        (right - half, above),
        (right - half, below),
        (middle_x, above),
        (middle_x, below),
    ];
    if side == Side::Above {
        corners = [
            (x - width, above),
            (middle_x, above),
            (x, above),
            (left, middle_y - half),
            (left, middle_y),
            (right, middle_y - half),
            (right, middle_y),
            (x - width, below),
            (middle_x, below),
            (x, below),
        ];
    }
    corners.map(|(left, top)| Area { left, top, right: left + width, bottom: top + height })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Area = Area { left: 0, top: 0, right: 600, bottom: 400 };

    #[test]
    fn labels_of_one_spot_do_not_overlap() {
        let mut places = Places::new(BOUNDS);
        let dots: Vec<_> = (0..30).map(|i| (300 + i % 3, 200 + i % 5)).collect();
        dots.iter().for_each(|dot| places.take(Area::around(*dot, 5)));
        let labels: Vec<_> = dots.iter().map(|dot| places.place(*dot, (120, 16), Side::Right, 600).unwrap()).collect();
        for (index, label) in labels.iter().enumerate() {
            assert!(label.lies_in(&BOUNDS));
            assert!(!dots.iter().any(|dot| Area::around(*dot, 5).meets(label)));
            assert!(!labels[..index].iter().any(|other| other.meets(label)), "{labels:?}");
        }
    }

    #[test]
    fn no_label_stands_between_a_point_and_its_label() {
        let mut places = Places::new(BOUNDS);
        places.take_line((0, 200), (600, 200));
        let line = places.place((300, 200), (100, 16), Side::Above, 600).unwrap();
        let label = places.place((250, 202), (100, 16), Side::Right, 600).unwrap();
        assert!(line.bottom < 200 && label.top > 200, "{line:?} {label:?}");
    }

    #[test]
    fn a_label_goes_to_its_side_and_to_the_other_one_at_the_edge() {
        let mut places = Places::new(BOUNDS);
        assert!(places.place((300, 200), (100, 16), Side::Right, 600).unwrap().left > 300);
        assert!(places.place((595, 300), (100, 16), Side::Right, 600).unwrap().right < 595);
        assert!(places.place((300, 100), (100, 16), Side::Above, 600).unwrap().bottom < 100);
        assert_eq!(places.place((300, 200), (1000, 16), Side::Right, 600), None);
    }

    #[test]
    fn an_area_knows_its_nearest_point() {
        assert_eq!(BOUNDS.nearest((-5, 7)), (0, 7));
        assert_eq!(BOUNDS.nearest((700, 500)), (600, 400));
    }
}
