//! The figures as plain text, for scripts and pipes.

use super::figures::Cluster;
use crate::cli::table::aligned;

/// All figures, in lines.
pub fn text(cluster: &Cluster) -> String {
    let lines = cluster.lines().into_iter().map(|(name, text)| vec![name.to_owned(), text]);
    let lines: Vec<_> = [vec!["model".to_owned(), cluster.title()]].into_iter().chain(lines).collect();
    let mut text = format!("{}\n{}", aligned(&lines), aligned(&cluster.nodes()));
    let mut events = cluster.events().peekable();
    if events.peek().is_some() {
        text.push('\n');
    }
    events.for_each(|event| text += &(event + "\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::example;

    #[test]
    fn all_figures_are_there() {
        let want = "\
model     smollm2, up for 1 h 2 min
speed     41.2 tokens/s of answers, 0 of prompts, 2.50 rows in a batch
requests  2 running of 4, 1 waiting; 9 served, 0 refused, 3 cancelled, 0 failed
tokens    250 of answers, 100 of prompts, 40 of them known from before
KV cache  512 tokens in 4 slots of 2048 positions, 6.25 %
network   12.3 MB sent, 999 B received, 1.50 s in exchanges

NODE           STATE  SHARE   MEMORY   PASSES  COMPUTE ms
root           here   62.5 %  –        100     12.3
10.0.0.2:9990  out    37.5 %  1.50 GB  –       –

2026-11-27T10:00:05Z  computing 40 tokens again
2026-11-27T10:00:00Z  left out: worker 10.0.0.2:9990
";
        assert_eq!(text(&example()), want);
    }
}
