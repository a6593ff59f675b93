//! The guide without a terminal: all steps, one after the other, as lines.

use super::action::actions;
use super::state::State;
use super::step::Step;
use super::work;
use super::world::World;
use crate::cli::Failure;
use crate::machine::terminal::print_line;
use std::path::Path;

/// Does all steps that are left.
///
/// # Errors
/// Names the step that has failed.
pub fn run(state: &mut State, path: &Path, world: &World) -> Result<(), Failure> {
    for step in Step::ALL {
        let name = step.name();
        if actions(step, state, world).is_empty() {
            print_line(format_args!("{name}: nothing to do, this machine works alone"))?;
        } else if state.completed.contains(&step) {
            print_line(format_args!("{name}: done before"))?;
        } else {
            work::do_step(step, state, path, world).map_err(|failure| match failure {
                Failure::Line(line) => {
                    Failure::Line(format!("the step {name} failed: {line}; the same command goes on there"))
                }
                failure => failure,
            })?;
        }
    }
    work::print_next(state, world)
}

/// Prints what would be run, as a shell takes it.
///
/// # Errors
/// Where nobody reads.
pub fn print(state: &State, world: &World) -> Result<(), Failure> {
    for step in Step::ALL {
        print_line(format_args!("# {}", step.title()))?;
        for action in actions(step, state, world) {
            print_line(action.shown(world))?;
        }
    }
    Ok(())
}
