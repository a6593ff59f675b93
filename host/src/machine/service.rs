//! What a service tells the one that started it: systemd, by the socket that `NOTIFY_SOCKET` names.

use sd_notify::NotifyState;

/// Clients can come.
pub fn is_ready() {
    tell(NotifyState::Ready);
}

/// It is about to end.
pub fn is_stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    // Where nobody waits for it, there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}
