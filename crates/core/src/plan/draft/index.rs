//! From names to numbers without comparing names more than once: every task of a fleet is looked up in each plan.

/// No number.
const NONE: u32 = u32::MAX;

/// The numbers of names, by a hash that is the same everywhere. Only ever asked, never gone through: its order means nothing.
#[derive(Default)]
pub(super) struct Index {
    /// A power of two of them, at most half in use, so that every search ends.
    slots: Vec<u32>,
}

impl Index {
    /// Numbers names in their order.
    pub(super) fn new<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Self {
        let mut slots = vec![NONE; (names.len() * 2).next_power_of_two()];
        let last = slots.len() - 1;
        for (number, name) in (0..NONE).zip(names) {
            let mut at = hash(name) & last;
            while slots[at] != NONE {
                at = (at + 1) & last;
            }
            slots[at] = number;
        }
        Self { slots }
    }

    /// The number of a name; `name_of` tells the names by number.
    pub(super) fn find<'n>(&self, name: &str, name_of: impl Fn(usize) -> &'n str) -> Option<usize> {
        let last = self.slots.len().checked_sub(1)?;
        let mut at = hash(name) & last;
        while self.slots[at] != NONE {
            let number = self.slots[at] as usize;
            if name_of(number) == name {
                return Some(number);
            }
            at = (at + 1) & last;
        }
        None
    }
}

/// Multiplies and mixes, eight bytes at a time.
fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let mix = |hash: u64, word: u64| {
        let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ (hash >> 32)
    };
    let (words, _) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    // What is left over with some of what was hashed, or all of a short name.
    let last = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => bytes.iter().fold(0, |last, byte| (last << 8) | u64::from(*byte)),
    };
    mix(hash, last) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_number_and_no_other_has_one() {
        for count in [0, 1, 2, 3, 100, 1_000] {
            let names: Vec<String> = (0..count).map(|number| format!("a-host-with-a-name-{number}")).collect();
            let index = Index::new(names.iter().map(String::as_str));
            for (number, name) in names.iter().enumerate() {
                assert_eq!(index.find(name, |number| &names[number]), Some(number));
            }
            assert_eq!(index.find("a-host-with-a-name", |number| &names[number]), None);
            assert_eq!(index.find("", |number| &names[number]), None);
        }
    }
}
