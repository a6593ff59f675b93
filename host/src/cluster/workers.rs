//! What workers that were called can do for a model: compute their parts of their own copies, or be sent the weights.

use crate::model::identity;
use crate::net::native::Called;
use crate::net::{Address, NetError, Stage, printable};
use dair_core::wire::native::{HasModel, VERSION};

/// The workers at `addresses`, if all of them have the model that is `wanted`; `None` where they are to be sent the weights in the
/// dialect of C++ Distributed-Llama. `called` is what each has answered.
///
/// # Errors
/// Names the worker of another version or with another file.
pub fn with_model(
    addresses: &[Address],
    called: Vec<Option<Called>>,
    wanted: &HasModel,
    progress: impl Fn(Stage<'_>),
) -> Result<Option<Vec<Called>>, NetError> {
    called.iter().flatten().try_for_each(check_version)?;
    called.iter().flatten().try_for_each(check_free)?;
    let has_file = |worker: &Option<Called>| worker.as_ref().is_some_and(|worker| !worker.have.models.is_empty());
    let names = |is_wanted: &dyn Fn(&Option<Called>) -> bool| {
        let workers = addresses.iter().zip(&called).filter(|(_, worker)| is_wanted(worker));
        workers.map(|(address, _)| format!("worker {address}")).collect::<Vec<_>>()
    };
    let (native, without) = (names(&has_file), names(&|worker| !has_file(worker)));
    if native.is_empty() {
        return Ok(None);
    }
    if !without.is_empty() {
        progress(Stage::WithoutFile(&without.join(", ")));
        return Ok(None);
    }
    let called: Vec<_> = called.into_iter().flatten().collect();
    called.iter().try_for_each(|worker| check_model(worker, wanted))?;
    Ok(Some(called))
}

/// A root with a key does not send weights, nor the words of a conversation, to whoever answers at `addresses`.
pub fn exposed(addresses: &[Address]) -> NetError {
    let names: Vec<_> = addresses.iter().map(|address| format!("worker {address}")).collect();
    NetError::Exposed { workers: names.join(", ") }
}

/// Demands that a worker speaks this version of the dialect.
///
/// # Errors
/// Names it and its version.
pub fn check_version(worker: &Called) -> Result<(), NetError> {
    match worker.have.version {
        VERSION => Ok(()),
        version => Err(NetError::Version { peer: worker.peer().to_owned(), version }),
    }
}

/// Demands that a worker serves nobody.
///
/// # Errors
/// Names it and whom it serves.
pub fn check_free(worker: &Called) -> Result<(), NetError> {
    match &*worker.have.busy {
        "" => Ok(()),
        busy => Err(NetError::Busy { peer: worker.peer().to_owned(), busy: printable(busy) }),
    }
}

/// Demands that a worker has the model that is `wanted`.
///
/// # Errors
/// Names it and what differs.
pub fn check_model(worker: &Called, wanted: &HasModel) -> Result<(), NetError> {
    let other = |difference| NetError::OtherModel { peer: worker.peer().to_owned(), difference };
    identity::find(wanted, &worker.have.models).map(|_| ()).map_err(other)
}
