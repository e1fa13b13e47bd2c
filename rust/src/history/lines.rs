//! Lines before they are written: which contexts and which things each of them has.

use super::pieces::Group;

/// Lines before they are written, oldest first: by their groups, one after the other.
#[derive(Default)]
pub struct Lines {
    pub groups: Vec<Group>,
    pub things: Vec<u32>,
    /// Where the groups and the things of each line end.
    pub ends: Vec<(u32, u32)>,
}

impl Lines {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[Group], &[u32])> {
        let mut from = (0, 0);
        self.ends.iter().map(move |&to| {
            let (groups, things) = from;
            from = (to.0 as usize, to.1 as usize);
            (&self.groups[groups..from.0], &self.things[things..from.1])
        })
    }

    /// The things of some lines.
    pub fn things_of(&self, from: usize, to: usize) -> &[u32] {
        let start = |line: usize| line.checked_sub(1).map_or(0, |line| self.ends[line].1);
        &self.things[start(from) as usize..start(to) as usize]
    }

    /// Adds some lines of others that have one group each.
    pub fn append(&mut self, lines: &Self, from: usize, to: usize) {
        let before = self.things.len() as u32;
        let start = from.checked_sub(1).map_or(0, |line| lines.ends[line].1);
        let groups = self.groups.len() as u32;
        self.groups.extend_from_slice(&lines.groups[from..to]);
        self.things.extend_from_slice(lines.things_of(from, to));
        let ends = lines.ends[from..to].iter().zip(groups + 1..);
        self.ends
            .extend(ends.map(|(end, groups)| (groups, end.1 - start + before)));
    }

    pub fn clear(&mut self) {
        self.groups.clear();
        self.things.clear();
        self.ends.clear();
    }

    pub fn close(&mut self) {
        self.ends
            .push((self.groups.len() as u32, self.things.len() as u32));
    }
}
