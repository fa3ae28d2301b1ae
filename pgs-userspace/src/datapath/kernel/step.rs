//! The steps of an enrolment, of writing on, and of a backend's leaving and coming back, by name:
//! between any two of them a side may send.

use super::KernelAccess;

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::datapath) enum Step {
    /// Both queues were read to their end; nothing else yet.
    Read,
    /// The records stand.
    Records,
    /// The sources lead to them.
    Indexes,
    /// Each socket is a target.
    Targets,
    /// The backend is a source.
    BackendSource,
    /// It is known that nothing waits in its queue.
    Silence,
    /// The client is a source.
    ClientSource,
    /// What the client had sent before is judged.
    Judged,
    /// What the router itself held is written; the next is the order to redirect.
    Written,
    /// Whatever comes now may be redirected.
    Open,
    /// The verdict knows how many diverted bytes are written; the router still counts as one that
    /// holds some.
    Forwarded,
    /// A blocked backend is about to be a source no more.
    Withdrawing,
    /// It is none.
    Withdrawn,
    /// It is about to be one again.
    Returning,
    /// It is; what had come before is not known yet.
    Returned,
}

/// What a test does between steps.
#[cfg(test)]
pub(in crate::datapath) type Between = std::cell::RefCell<Box<dyn FnMut(Step) + Send>>;

impl KernelAccess {
    /// Has a test do what it does after this step. Nothing in the program itself.
    #[inline]
    pub(super) fn passes(&self, step: Step) {
        #[cfg(test)]
        if let Some(between) = &self.between_steps {
            between.borrow_mut()(step);
        }
        #[cfg(not(test))]
        let _ = step;
    }
}
