//! The guide without a terminal: all steps, one after the other, as lines.

use super::action::{self, Action};
use super::child;
use super::state::State;
use super::step::Step;
use super::world::World;
use crate::cli::Failure;
use crate::machine::terminal;
use std::path::Path;

/// Does all steps that are left.
///
/// # Errors
/// Names the step that has failed.
pub fn run(state: &mut State, path: &Path, world: &World) -> Result<(), Failure> {
    for step in Step::ALL {
        let actions = actions(step, state, world);
        if actions.is_empty() {
            terminal::print_line(format_args!("{}: nothing to do, this machine works alone", step.name()))?;
            continue;
        }
        if state.completed.contains(&step) {
            terminal::print_line(format_args!("{}: done before", step.name()))?;
            continue;
        }
        terminal::print_line(format_args!("{}: {}", step.name(), title(step)))?;
        state.current = step;
        state.write(path)?;
        let result = do_step(step, &actions, state, world);
        let failed = |line| format!("the step {} failed: {line}; the same command goes on there", step.name());
        result?.map_err(failed)?;
        state.completed.insert(step);
        state.write(path)?;
    }
    terminal::print_line("\nWhat next:")?;
    for line in action::next_commands(&state.config, world) {
        terminal::print_line(format_args!("  {line}"))?;
    }
    Ok(())
}

fn actions(step: Step, state: &State, world: &World) -> Vec<Action> {
    action::actions(step, &state.config, state.model_file.as_deref(), world)
}

/// What a step is about.
fn title(step: Step) -> &'static str {
    step.title().split_once(": ").map_or(step.title(), |(_, what)| what)
}

/// The inner error is what a step has failed by; the outer one, that nobody reads.
fn do_step(step: Step, actions: &[Action], state: &mut State, world: &World) -> Result<Result<(), String>, Failure> {
    if let Some(line) = action::obstacle(step, &state.config, state.model_file.as_deref(), world) {
        return Ok(Err(line));
    }
    for action in actions {
        terminal::print_line(format_args!("$ {}", action.shown(world)))?;
        let (line, model) = match child::run_here(action, world) {
            Ok(told) => told,
            Err(line) => return Ok(Err(line)),
        };
        if let Some(line) = line {
            terminal::print_line(line)?;
        }
        if model.is_some() {
            state.model_file = model;
        }
    }
    Ok(Ok(()))
}

/// Prints what would be run, as a shell takes it.
///
/// # Errors
/// Where nobody reads.
pub fn print(state: &State, world: &World) -> Result<(), Failure> {
    for step in Step::ALL {
        terminal::print_line(format_args!("# {}", step.title()))?;
        for action in actions(step, state, world) {
            terminal::print_line(action.shown(world))?;
        }
    }
    Ok(())
}
