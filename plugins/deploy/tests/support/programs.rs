//! The programs in the router's container: HAProxy's and nginx's answers to what Windlass runs there.

use windlass_guest::containers::{Container, Output, Program};

use super::World;

fn said(text: &str) -> Output {
    Output {
        exit: 0,
        stdout: text.into(),
        stderr: String::new(),
    }
}

fn failed(words: &str) -> Output {
    Output {
        exit: 1,
        stdout: String::new(),
        stderr: words.into(),
    }
}

impl World {
    /// What a router reads when it starts.
    pub(super) fn load_router(&mut self) {
        self.memory.clear();
        if let Some((_, said)) = self.file.split_once("default \"") {
            let said = said.split('"').next().unwrap_or_default();
            if !said.is_empty() {
                self.memory.insert("backend".into(), said.into());
            }
            return;
        }
        for line in self.file.lines() {
            if let Some((service, live)) = line.split_once(' ') {
                self.memory.insert(service.into(), live.into());
            }
        }
    }

    pub(super) fn repeatable_program(&mut self, program: &Program) -> Output {
        let words: Vec<&str> = program.argv.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["wget", "-qO-", url] => self.live(url),
            ["cat", "/router/live.map" | "/router/backend.conf"] => said(&self.file),
            ["sh", "-c", _, "confirm", url, count] => {
                let one = self.live(url);
                let lines = format!("{}\n", one.stdout).repeat(count.parse().unwrap());
                Output { stdout: lines, ..one }
            }
            ["sh", "-c", _, "ask", .., url] => self.answer(url),
            ["nc", ..] => self.statistics(program.input.as_deref().unwrap()),
            ["sh", "-c", script] if script.contains("live.map.new") => self.write(program),
            ["sh", "-c", _, "record", "backend"] => self.write(program),
            ["sh", "-c", script] if script.contains("hutting") => said("0\n"),
            other => panic!("nobody knows the program {other:?}"),
        }
    }

    /// Whether it would start with what it does.
    pub(crate) fn is_recorded(&self) -> bool {
        let mut restarted = self.clone();
        restarted.load_router();
        restarted.memory == self.memory
    }

    pub(super) fn run_program(&mut self, program: &Program) -> Output {
        let words: Vec<&str> = program.argv.iter().map(String::as_str).collect();
        let input = program.input.clone().unwrap_or_default();
        match words.as_slice() {
            ["nginx", "-s", "reload"] => self.load_router(),
            ["nc", ..] => return self.command(&input),
            other => panic!("nobody knows the program {other:?}"),
        }
        said("")
    }

    fn write(&mut self, program: &Program) -> Output {
        self.file = program.input.clone().unwrap();
        said("")
    }

    fn live(&self, url: &str) -> Output {
        let service = url.rsplit('/').next().unwrap();
        match self.memory.get(service) {
            Some(live) => said(live),
            None => failed("wget: server returned error: HTTP/1.1 404 Not Found"),
        }
    }

    fn command(&mut self, input: &str) -> Output {
        let plain = input.trim().replace("\\ ", "\u{1}");
        let words: Vec<&str> = plain.split(' ').collect();
        match words.as_slice() {
            ["set", "map", _, service, _] if !self.memory.contains_key(*service) => {
                return said("entry not found.\n");
            }
            ["set" | "add", "map", _, service, live] => {
                drop(self.memory.insert((*service).into(), live.replace('\u{1}', " ")))
            }
            ["del", "map", _, service] => drop(self.memory.remove(*service)),
            other => panic!("nobody knows the command {other:?}"),
        }
        said("\n")
    }

    fn of_backend(&self, backend: &str) -> Vec<&Container> {
        let backend = backend.to_owned();
        self.containers
            .iter()
            .filter(|container| container.is_running() && self.aliases(container).contains(&backend))
            .collect()
    }

    fn statistics(&mut self, input: &str) -> Output {
        let words: Vec<&str> = input.split_whitespace().collect();
        let ["show", "stat", backend, kind, "-1"] = words[..] else {
            panic!("nobody knows {input}");
        };
        if kind == "2" {
            let left = self.in_flight.get(backend).copied().unwrap_or(0);
            self.in_flight.insert(backend.into(), left.saturating_sub(1));
            return said(&format!("# pxname,svname\n{backend},BACKEND,0,0,{left},3,,\n"));
        }
        let well = self
            .of_backend(backend)
            .into_iter()
            .filter(|container| container.health == "healthy")
            .count();
        let row = |at: usize| {
            let (status, check) = if at < well {
                ("UP", "* L7OK")
            } else {
                ("MAINT (resolution)", "")
            };
            let mut fields = vec![""; 40];
            fields[0] = backend;
            fields[17] = status;
            fields[36] = check;
            fields.join(",")
        };
        let rows: Vec<String> = (0..8).map(row).collect();
        said(&format!("# pxname\n{}\n", rows.join("\n")))
    }

    fn answer(&self, url: &str) -> Output {
        let host = url.trim_start_matches("http://").split(':').next().unwrap();
        match self.of_backend(host).first() {
            None => failed("curl: (7) Failed to connect: Connection refused"),
            Some(container) => {
                let status = self.wrong.get(&container.image).copied().unwrap_or(401);
                said(&format!(
                    "HTTP/1.1 {status} Word\r\ncontent-type: application/json\r\n\r\n{{\"from\":\"{}\"}}",
                    container.image
                ))
            }
        }
    }
}
