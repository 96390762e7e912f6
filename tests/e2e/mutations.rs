//! `windlass validate` on a thousand spoilt copies of the quickstart: all are read, none makes it panic, and what it says is in
//! the words of the file, never in those of this program.
//!
//! The mutations are of the kind that people make: a value of another type, a missing or doubled line, another indentation, half a
//! file. Those of single characters are in `host/tests/plans.rs`.

use super::contract::workspace;

const COPIES: usize = 1_000;

/// What only a programmer of Windlass should read.
const INTERNAL: [&str; 14] = [
    "panicked",
    "RUST_BACKTRACE",
    "unwrap",
    "serde",
    "Option<",
    "Some(",
    "None",
    "Vec<",
    "String",
    "u8",
    "u64",
    "struct",
    "invalid type",
    "untagged enum",
];

/// Values of every type, and some that are nearly right.
const VALUES: [&str; 16] = [
    "true",
    "12",
    "-1",
    "1.5",
    "\"\"",
    "null",
    "[]",
    "[[1]]",
    "{}",
    "{ a: { b: c } }",
    "\"${{ secrets.database }}\"",
    "\"${{ vars.versoin }}\"",
    "\"${{ stages.backup.outputs.x }}\"",
    "\"${{ 1 + }}\"",
    "10 parsecs",
    "ftp://x:y@z:99999",
];

/// The same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).expect("below the bound")
    }
}

fn mutate(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for _ in 0..=random.below(2) {
        let at = random.below(lines.len());
        let line = lines[at].clone();
        match random.below(8) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, line),
            2 => lines[at] = format!("  {line}"),
            3 => lines[at] = line.trim_start().to_string(),
            4 => lines.truncate(at + 1),
            _ => {
                let value = VALUES[random.below(VALUES.len())];
                if let Some((key, _)) = line.split_once(": ") {
                    lines[at] = format!("{key}: {value}");
                } else if line.ends_with(':') {
                    lines[at] = format!("{line} {value}");
                }
            }
        }
    }
    lines.join("\n")
}

#[test]
fn a_thousand_spoilt_files_are_refused_in_words_of_the_file() {
    let workspace = workspace();
    let text = workspace.read("pipelines/quickstart.yaml");
    let mut random = Random(0x5eed);
    let files: Vec<String> = (0..COPIES)
        .map(|number| format!("spoilt/{number}.yaml"))
        .collect();
    for file in &files {
        workspace.write(file, &mutate(&text, &mut random));
    }
    let ended = workspace
        .windlass(["validate".to_string()].iter().chain(&files))
        .expect(65);
    let refused = files
        .iter()
        .filter(|file| ended.stderr.contains(&format!("{file}:")))
        .count();
    assert!(refused > COPIES / 2, "only {refused} were refused");
    // Lines of the file itself are shown beside what is said about them.
    let said = ended.stderr.lines().filter(|line| {
        let start = line.trim_start();
        !start.starts_with(|first: char| first.is_ascii_digit() || first == '|')
    });
    for line in said {
        for word in INTERNAL {
            assert!(!line.contains(word), "{word} in {line}");
        }
    }
}
