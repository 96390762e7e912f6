//! All places of all patterns in a text, in one pass of one automaton.
//!
//! Only the first bytes of a pattern are in the automaton, the rest is compared: its size then depends on how many secrets
//! there are and not on how long they are.

use aho_corasick::{
    Anchored, MatchKind, StartKind,
    automaton::{Automaton, StateID},
    dfa,
    nfa::contiguous,
};
use std::{collections::HashMap, ops::Range};
use zeroize::Zeroizing;

/// How many bytes of a pattern are in the automaton.
const ANCHOR: usize = 64;

/// Up to this many bytes of anchors, the automaton is a table (the fastest, about 512 bytes for each byte of an anchor):
/// 100 secrets of 30 characters have 40,000. Above, it is a compact one at half the speed.
const TABLE_UP_TO: usize = 64 << 10;

pub(super) struct Scanner {
    machine: Machine,
    patterns: Vec<Zeroizing<Vec<u8>>>,
    /// For each state: how many bytes at the end of what was read may be the start of a pattern.
    tails: HashMap<StateID, usize>,
}

enum Machine {
    Table(dfa::DFA),
    Compact(contiguous::NFA),
}

/// What was found in a text.
pub(super) struct Finds {
    /// In order, apart from each other, on character boundaries.
    pub(super) masked: Vec<Range<usize>>,
    /// From here on the text may be the start of a pattern that goes on in the next piece.
    pub(super) hold: usize,
}

impl Scanner {
    pub(super) fn new(patterns: Vec<Zeroizing<Vec<u8>>>) -> Self {
        const FEWER: &str = "anchors are short: there are far fewer than 2^31 states";
        let anchors: Vec<&[u8]> = patterns.iter().map(|pattern| anchor(pattern)).collect();
        let size: usize = anchors.iter().map(|anchor| anchor.len()).sum();
        let (machine, tails);
        if size <= TABLE_UP_TO {
            let table = dfa::Builder::new()
                .match_kind(MatchKind::Standard)
                .start_kind(StartKind::Unanchored)
                .prefilter(false)
                .build(&anchors)
                .expect(FEWER);
            tails = tails_of(&table, &anchors);
            machine = Machine::Table(table);
        } else {
            let compact = contiguous::Builder::new()
                .match_kind(MatchKind::Standard)
                .prefilter(false)
                .build(&anchors)
                .expect(FEWER);
            tails = tails_of(&compact, &anchors);
            machine = Machine::Compact(compact);
        }
        Self {
            machine,
            patterns,
            tails,
        }
    }

    /// All finds in `text`, whose first `masked` bytes are known to be one already; `last`: nothing follows.
    pub(super) fn find(&self, text: &str, masked: usize, last: bool) -> Finds {
        let mut search = Search {
            scanner: self,
            text: text.as_bytes(),
            found: (masked > 0).then_some(0..masked).into_iter().collect(),
            pending: text.len(),
        };
        let state = match &self.machine {
            Machine::Table(table) => search.walk(table),
            Machine::Compact(compact) => search.walk(compact),
        };
        let hold = if last {
            text.len()
        } else {
            let tail = self.tails.get(&state).copied().unwrap_or(0);
            text.floor_char_boundary(search.pending.min(text.len() - tail))
        };
        Finds {
            masked: merged(text, search.found),
            hold,
        }
    }
}

struct Search<'a> {
    scanner: &'a Scanner,
    text: &'a [u8],
    found: Vec<Range<usize>>,
    /// The first place where a pattern starts that the text's end cuts off behind its anchor.
    pending: usize,
}

impl Search<'_> {
    fn walk(&mut self, machine: &impl Automaton) -> StateID {
        let (mut state, mut at) = (start(machine), 0);
        loop {
            (state, at) = next_match(machine, state, self.text, at);
            if !machine.is_match(state) {
                return state;
            }
            for index in 0..machine.match_len(state) {
                self.compare(machine.match_pattern(state, index).as_usize(), at);
            }
            if at == self.text.len() {
                return state;
            }
        }
    }

    /// The anchor of a pattern ends at `end`: is the rest there too?
    fn compare(&mut self, pattern: usize, end: usize) {
        let pattern = &self.scanner.patterns[pattern];
        let (anchor, rest) = pattern.split_at(anchor(pattern).len());
        let start = end - anchor.len();
        let available = &self.text[end..];
        if available.starts_with(rest) {
            self.found.push(start..start + pattern.len());
        } else if rest.starts_with(available) {
            self.pending = self.pending.min(start);
        }
    }
}

/// Reads up to where an anchor ends, or the text. The one loop over every byte: nothing else is in it.
#[inline(never)]
fn next_match(machine: &impl Automaton, mut state: StateID, text: &[u8], from: usize) -> (StateID, usize) {
    for (at, byte) in text.iter().enumerate().skip(from) {
        state = machine.next_state(Anchored::No, state, *byte);
        if machine.is_special(state) && machine.is_match(state) {
            return (state, at + 1);
        }
    }
    (state, text.len())
}

fn anchor(pattern: &[u8]) -> &[u8] {
    &pattern[..pattern.len().min(ANCHOR)]
}

fn start(machine: &impl Automaton) -> StateID {
    machine
        .start_state(Anchored::No)
        .expect("it was built for searches that are not anchored")
}

/// Finds that overlap become one; finds that only touch stay two, so that the result does not depend on where a text is cut.
fn merged(text: &str, mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    found.sort_unstable_by_key(|find| find.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for find in found {
        let find = text.floor_char_boundary(find.start)..text.ceil_char_boundary(find.end);
        match merged.last_mut() {
            Some(last) if find.start < last.end => last.end = last.end.max(find.end),
            _ => merged.push(find),
        }
    }
    merged
}

/// For every state the longest end of what led there that is the start of an anchor without being all of it.
fn tails_of(machine: &impl Automaton, anchors: &[&[u8]]) -> HashMap<StateID, usize> {
    let mut tails = HashMap::new();
    let mut ends = Vec::new();
    for anchor in anchors {
        let mut state = start(machine);
        for (at, byte) in anchor.iter().enumerate() {
            state = machine.next_state(Anchored::No, state, *byte);
            if at + 1 < anchor.len() {
                tails.insert(state, at + 1);
            }
        }
        ends.push((anchor, state));
    }
    // Behind a whole anchor counts what is left without its first byte: a shorter one, so the shorter ones come first.
    ends.sort_unstable_by_key(|(anchor, _)| anchor.len());
    for (anchor, end) in ends {
        if !tails.contains_key(&end) {
            let step = |state, byte: &u8| machine.next_state(Anchored::No, state, *byte);
            let left = anchor[1..].iter().fold(start(machine), step);
            let tail = tails.get(&left).copied().unwrap_or(0);
            tails.insert(end, tail);
        }
    }
    tails
}
