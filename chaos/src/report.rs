//! The report printed at the end of a run.

use std::time::Duration;

use sandbox::stripe::Session;

use crate::{load::Client, stage::Scene};

/// The number of examples printed for a failed check.
const EXAMPLES: usize = 8;

/// The report, with one line per check.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    failed: u64,
}

impl Report {
    /// Adds a check. `found` lists the violations; empty if the check passed.
    pub(crate) fn check(&mut self, promise: &str, counted: impl Into<String>, found: &[String]) {
        let counted = counted.into();
        if found.is_empty() {
            self.lines.push(format!("ok      {promise} ({counted})"));
        } else {
            self.failed(promise, &counted, found);
        }
    }

    pub(crate) fn failed(&mut self, promise: &str, counted: &str, found: &[String]) {
        self.failed += found.len() as u64;
        self.lines.push(format!("FAILED: {promise} ({counted}): {} times", found.len()));
        self.lines.extend(found.iter().take(EXAMPLES).map(|example| format!("          {example}")));
    }

    pub(crate) fn is_well(&self) -> bool {
        self.failed == 0
    }

    pub(crate) fn print(&self, scene: &Scene, clients: &[Client], repeat: &str, took: Duration) {
        println!("\n| request | how it ended |\n|---|---|");
        for (kind, ended) in scene.book.answers() {
            let ended: Vec<String> = ended.iter().map(|(how, times)| format!("{times} {how}")).collect();
            println!("| {kind} | {} |", ended.join(", "));
        }
        println!("\n| fault | tried | lost |\n|---|---|---|");
        let lost = if self.is_well() { "nothing".to_owned() } else { format!("see the {} above", self.failed) };
        let mail = scene.stripe.mail();
        let sessions = scene.stripe.sessions();
        let count = |of: fn(&Session) -> usize| sessions.iter().map(of).sum::<usize>() as u64;
        let of_stripe = [
            ("a payment is delayed".to_owned(), count(|session| usize::from(session.is_debit))),
            ("a payment is refunded, whole or in part".to_owned(), count(|session| session.charge.refunds.len())),
            ("a payment is disputed".to_owned(), count(|session| session.charge.disputes.len())),
            ("a webhook is lost on its way".to_owned(), mail.lost as u64),
            ("a webhook comes again".to_owned(), mail.repeated as u64),
            ("a webhook is delayed, and others overtake it".to_owned(), mail.taken as u64),
        ];
        for (fault, tried) in
            scene.tally.all().into_iter().map(|(fault, counts)| (fault, counts.tried)).chain(of_stripe)
        {
            println!("| {fault} | {tried} | {lost} |");
        }
        for (fault, counts) in scene.tally.all().into_iter().filter(|(_, counts)| counts.missed > 0) {
            println!("(there was no occasion for it: {fault}, {} times)", counts.missed);
        }
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        let carts: usize = clients.iter().map(|client| client.carts.len()).sum();
        println!(
            "\n{carts} carts, {} requests, {} faults in {:.0} s: {}. Again: {repeat}",
            scene.book.requests(),
            scene.tally.tried(),
            took.as_secs_f64(),
            if self.is_well() { "nothing was lost" } else { "A PROMISE WAS BROKEN" },
        );
    }
}
