//! The four readings: which contexts and which things share a line.

use super::pieces::Group;
use crate::error::Error;

/// How things are grouped; see section 3 of the design. The order breaks ties between equally short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Contexts with equal sets of things share a line.
    Sequence,
    /// Things with equal sets of contexts share a line; each thing is written once.
    Item,
    /// `Sequence` inside one bucket.
    SequenceByBucket,
    /// `Item` inside one bucket.
    ItemByBucket,
}

impl Layout {
    pub const ALL: [Self; 4] = [
        Self::Sequence,
        Self::Item,
        Self::SequenceByBucket,
        Self::ItemByBucket,
    ];

    /// The layout at a row of `ALL`.
    pub fn from_row(row: usize) -> Result<Self, Error> {
        Self::ALL.get(row).copied().ok_or_else(|| Error::Value {
            argument: "layout",
            expected: format!("from 0 to {}", Self::ALL.len() - 1),
            came: row.to_string(),
            position: 0,
        })
    }
}

/// What happened to one thing in one bucket.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub thing: u32,
    pub bucket: u16,
    /// One bit a behavior.
    pub mask: u32,
}

impl Cell {
    #[inline]
    fn group(&self) -> Group {
        Group::new(self.bucket, self.mask)
    }
}

/// Lines before they are written, oldest first: by their groups, one after the other.
#[derive(Default)]
pub struct Lines {
    groups: Vec<Group>,
    things: Vec<u32>,
    /// Where the groups and the things of each line end.
    ends: Vec<(u32, u32)>,
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

    /// How many lines come before the open part.
    pub fn closed(&self, open: u16) -> usize {
        self.iter()
            .take_while(|(groups, _)| groups[0].bucket() < open)
            .count()
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.things.clear();
        self.ends.clear();
    }

    fn close(&mut self) {
        self.ends
            .push((self.groups.len() as u32, self.things.len() as u32));
    }
}

/// Scratch memory of the readings, reused from user to user.
#[derive(Default)]
pub struct Reader {
    sets: Sets,
    /// Per thing: its set in the closed and in the open part.
    set_of: Vec<u32>,
    counts: Vec<u32>,
    /// Lines by what decides their order.
    order: Vec<(Group, Group, u32)>,
    keys: Vec<u64>,
    contexts: Vec<Context>,
}

/// No set yet: the root of the tree of sets.
const NONE: u32 = 0;

impl Reader {
    /// Groups cells into lines. Cells come by bucket and, inside a bucket, each thing at most once; `things` is how
    /// many there are; buckets from `open` on are open and share no line with closed ones.
    pub fn read(
        &mut self,
        cells: &[Cell],
        things: usize,
        layout: Layout,
        open: u16,
        out: &mut Lines,
    ) {
        out.clear();
        match layout {
            Layout::Item => self.item(cells, things, open, out),
            Layout::ItemByBucket => self.item_by_bucket(cells, out),
            Layout::Sequence => self.sequence(cells, open, false, out),
            Layout::SequenceByBucket => self.sequence(cells, open, true, out),
        }
    }

    /// Sets of groups as paths in a tree: a thing walks one step down for each of its cells, and things at the same
    /// node have the same set. Exact, and one look-up a cell.
    fn item(&mut self, cells: &[Cell], things: usize, open: u16, out: &mut Lines) {
        self.sets.clear(cells.len());
        self.set_of.clear();
        self.set_of.resize(2 * things, NONE);
        for cell in cells {
            let place = cell.thing as usize + if cell.bucket < open { 0 } else { things };
            self.set_of[place] = self.sets.step(self.set_of[place], cell.group());
        }
        self.counts.clear();
        self.counts.resize(self.sets.nodes.len(), 0);
        for &set in &self.set_of {
            self.counts[set as usize] += 1;
        }
        // The first two groups decide nearly always, so that they stand beside the node.
        self.order.clear();
        for (node, &count) in self.counts.iter().enumerate().skip(1) {
            if count > 0 {
                let (first, second) = self.sets.head(node as u32);
                self.order.push((first, second, node as u32));
            }
        }
        let sets = &self.sets;
        self.order.sort_unstable_by(|left, right| {
            (left.0, left.1)
                .cmp(&(right.0, right.1))
                .then_with(|| sets.compare(left.2, right.2))
        });
        let mut start = 0;
        for &(_, _, node) in &self.order {
            let first = out.groups.len();
            self.sets.path(node, &mut out.groups);
            out.groups[first..].reverse();
            let count = std::mem::replace(&mut self.counts[node as usize], start);
            start += count;
            out.ends.push((out.groups.len() as u32, start));
        }
        out.things.resize(start as usize, 0);
        for (place, &set) in self.set_of.iter().enumerate() {
            if set != NONE {
                let to = &mut self.counts[set as usize];
                out.things[*to as usize] = if place < things {
                    place
                } else {
                    place - things
                } as u32;
                *to += 1;
            }
        }
    }

    fn item_by_bucket(&mut self, cells: &[Cell], out: &mut Lines) {
        for bucket in cells.chunk_by(|left, right| left.bucket == right.bucket) {
            self.keys.clear();
            let keys = bucket
                .iter()
                .map(|cell| u64::from(cell.mask) << 32 | u64::from(cell.thing));
            self.keys.extend(keys);
            self.keys.sort_unstable();
            for same in self.keys.chunk_by(|left, right| left >> 32 == right >> 32) {
                out.groups
                    .push(Group::new(bucket[0].bucket, (same[0] >> 32) as u32));
                out.things.extend(same.iter().map(|&key| key as u32));
                out.close();
            }
        }
    }

    /// Contexts with the same things stand together once they are sorted by scope, number and hash of their things; only
    /// where all three are equal are the things themselves compared.
    fn sequence(&mut self, cells: &[Cell], open: u16, by_bucket: bool, out: &mut Lines) {
        self.keys.clear();
        self.contexts.clear();
        for cells in cells.chunk_by(|left, right| left.bucket == right.bucket) {
            let bucket = cells[0].bucket;
            let first = self.keys.len();
            for cell in cells {
                let mut mask = cell.mask;
                while mask > 0 {
                    let behavior = u64::from(mask.trailing_zeros());
                    mask &= mask - 1;
                    self.keys.push(behavior << 32 | u64::from(cell.thing));
                }
            }
            // One bucket at a time: many short sorts are half as dear as a long one.
            self.keys[first..].sort_unstable();
            let mut start = first;
            for things in self.keys[first..].chunk_by(|left, right| left >> 32 == right >> 32) {
                self.contexts.push(Context {
                    scope: if by_bucket {
                        bucket
                    } else {
                        u16::from(bucket >= open)
                    },
                    len: things.len() as u32,
                    hash: things.iter().fold(0, |hash: u64, &key| {
                        (hash.rotate_left(5) ^ (key & 0xFFFF_FFFF)).wrapping_mul(MIX)
                    }),
                    start,
                    group: Group::new(bucket, 1 << (things[0] >> 32)),
                });
                start += things.len();
            }
        }
        let keys = &self.keys;
        let things = |context: &Context| {
            let keys = &keys[context.start..context.start + context.len as usize];
            keys.iter().map(|&key| key as u32)
        };
        self.contexts.sort_unstable_by(|left, right| {
            (left.scope, left.len, left.hash)
                .cmp(&(right.scope, right.len, right.hash))
                .then_with(|| things(left).cmp(things(right)))
                .then(left.start.cmp(&right.start))
        });
        // A context stands in one line only, so the first group decides the order of lines.
        self.order.clear();
        let mut start = 0;
        let same = |left: &Context, right: &Context| {
            (left.scope, left.len, left.hash) == (right.scope, right.len, right.hash)
                && things(left).eq(things(right))
        };
        for contexts in self.contexts.chunk_by(same) {
            let first = contexts
                .iter()
                .take_while(|context| context.group.bucket() == contexts[0].group.bucket())
                .fold(0, |mask, context| mask | context.group.mask());
            let group = Group::new(contexts[0].group.bucket(), first);
            self.order
                .push((group, Group(contexts.len() as u64), start));
            start += contexts.len() as u32;
        }
        self.order.sort_unstable();
        for &(_, count, start) in &self.order {
            let contexts = &self.contexts[start as usize..start as usize + count.0 as usize];
            for same in contexts.chunk_by(|left, right| left.group.bucket() == right.group.bucket())
            {
                let mask = same
                    .iter()
                    .fold(0, |mask, context| mask | context.group.mask());
                out.groups.push(Group::new(same[0].group.bucket(), mask));
            }
            out.things.extend(things(&contexts[0]));
            out.close();
        }
    }
}

/// One bucket and behavior, and its things among the keys.
#[derive(Debug, Clone, Copy)]
struct Context {
    /// Contexts of different scopes never share a line.
    scope: u16,
    len: u32,
    hash: u64,
    start: usize,
    group: Group,
}

/// The odd number nearest to 2^64 over the golden ratio: products with it spread well over the high bits.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// A tree of sets of groups; node 0 is the empty set.
#[derive(Default)]
struct Sets {
    nodes: Vec<(u32, Group)>,
    /// Open addressing: nodes by parent and group; 0 is free.
    table: Vec<u32>,
}

impl Sets {
    fn clear(&mut self, cells: usize) {
        self.nodes.clear();
        self.nodes.push((0, Group(0)));
        let size = (2 * cells).next_power_of_two().max(16);
        self.table.clear();
        self.table.resize(size, 0);
    }

    /// The set with one more group.
    #[inline]
    fn step(&mut self, set: u32, group: Group) -> u32 {
        let hash = (group.0 ^ u64::from(set) << 40 ^ u64::from(set)).wrapping_mul(MIX);
        let mask = self.table.len() - 1;
        let mut place = (hash >> 32) as usize & mask;
        loop {
            match self.table[place] {
                0 => {
                    let node = self.nodes.len() as u32;
                    self.nodes.push((set, group));
                    self.table[place] = node;
                    return node;
                }
                node if self.nodes[node as usize] == (set, group) => return node,
                _ => place = (place + 1) & mask,
            }
        }
    }

    /// The groups of a set, newest first.
    fn path(&self, mut node: u32, out: &mut Vec<Group>) {
        while node != NONE {
            let (parent, group) = self.nodes[node as usize];
            out.push(group);
            node = parent;
        }
    }

    /// The two oldest groups of a set.
    fn head(&self, mut node: u32) -> (Group, Group) {
        let (mut first, mut second) = (Group(0), Group(0));
        while node != NONE {
            second = first;
            (node, first) = self.nodes[node as usize];
        }
        (first, second)
    }

    fn compare(&self, left: u32, right: u32) -> std::cmp::Ordering {
        let path = |node| {
            let mut groups = Vec::new();
            self.path(node, &mut groups);
            groups.reverse();
            groups
        };
        path(left).cmp(&path(right))
    }
}
