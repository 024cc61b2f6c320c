//! `staunch accept`: use what is on disk although it was held back.

use super::Exit;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Carries the command out.
pub fn run(_args: Args) -> Exit {
    Exit::Failed
}
