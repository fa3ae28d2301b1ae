//! How a session's bytes are moved: all of them by the relay, or those that the verdict program
//! diverts, behind what it redirected before and ahead of what it will redirect next.

use super::direction::Direction;
use super::handover::CloseReason;
use super::kernel::Enrolment;
use super::kernel::KernelAccess;
use super::kernel::Unreceived;
use super::pump::PumpError;
use super::pump::Wait;
use super::session::KernelSession;
use super::session::Loan;
use super::session::Outcome;
use super::session::Path;
use super::session::Session;
use super::socket;
use super::waiting::Moved;
use super::withdrawal::Backend;
use crate::config::limits::RUN_LOOK_INTERVAL;
use crate::config::limits::WITHDRAWAL_LOOK_INTERVAL;

impl Session {
    /// Moves what there is from the client to the backend.
    pub(super) fn move_to_backend(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let both_ways = matches!(&self.path, Path::Kernel(kernel)
            if kernel.enrolment.aside().is_some());
        if both_ways && self.backend_gone {
            self.to_backend.discard();
        }
        if !both_ways || self.to_backend.is_discarding() {
            let wait = self.run_to_backend(loan, u64::MAX)?;
            // Where epoll reports edges only, a turn that ended early has to be taken up unasked.
            if wait == Wait::Turn && matches!(self.path, Path::Kernel(_)) {
                self.wait_after(Direction::ToBackend, &Moved::Turn, loan.now);
            }
            return Ok(());
        }
        // A turn begins: so the last one is over.
        if matches!(self.backend_standing(), Backend::Native { .. })
            && self.unreceived(Direction::ToBackend, loan) != Unreceived::Nothing
            && self.comes_back_when_asked()
        {
            self.try_return(loan)?;
        }
        let moved = self.move_diverted_to_backend(loan)?;
        self.wait_after(Direction::ToBackend, &moved, loan.now);
        self.listen_to_client(loan);
        Ok(())
    }

    /// Moves what there is from the backend to the client.
    pub(super) fn move_to_client(&mut self, loan: &mut Loan<'_>) -> Outcome {
        if !matches!(self.path, Path::Kernel(_)) {
            return self.run_to_client(loan, u64::MAX).map(drop);
        }
        let moved = match self.backend_standing() {
            Backend::Native { .. } => self.move_native(loan)?,
            _ => self.move_diverted_to_client(loan)?,
        };
        self.wait_after(Direction::ToClient, &moved, loan.now);
        self.listen_to_backend(loan);
        Ok(())
    }

    fn move_diverted_to_backend(&mut self, loan: &mut Loan<'_>) -> Result<Moved, CloseReason> {
        let direction = Direction::ToBackend;
        if self.client_ended {
            // The question takes the socket's lock: what came before the end has been judged.
            socket::unread_bytes(&self.client)
                .map_err(|error| CloseReason::ClientFailed(format!("SIOCINQ: {error}")))?;
        }
        let unreceived = self.unreceived(direction, loan);
        if unreceived == Unreceived::UNSETTLED {
            return Ok(Moved::At(RUN_LOOK_INTERVAL));
        }
        let nothing = unreceived == Unreceived::Nothing && self.to_backend.is_flushed();
        if nothing && (!self.client_ended || self.to_backend.is_ended()) {
            return Ok(Moved::Done);
        }
        if !self.is_drained(direction, loan)? {
            return Ok(Moved::Undrained);
        }
        let wait = match unreceived {
            // One more than was diverted, to read the end where it comes next.
            Unreceived::Nothing if self.client_ended => {
                self.run_recorded(direction, Unreceived::AtSource(1), loan)?
            }
            other => self.run_recorded(direction, other, loan)?,
        };
        self.open_when_flushed(loan);
        if self.client_ended && !self.to_backend.is_ended() && wait != Wait::Writable {
            // What was diverted is about to arrive, and then comes the end.
            return Ok(Moved::Undrained);
        }
        Ok(wait.into())
    }

    fn move_diverted_to_client(&mut self, loan: &mut Loan<'_>) -> Result<Moved, CloseReason> {
        let direction = Direction::ToClient;
        let unreceived = self.unreceived(direction, loan);
        if unreceived == Unreceived::UNSETTLED {
            return Ok(Moved::At(RUN_LOOK_INTERVAL));
        }
        if unreceived == Unreceived::Nothing && self.has_left(loan.now)? {
            return self.move_native(loan);
        }
        let lags = matches!(self.backend_standing(), Backend::Lagging { .. });
        if unreceived == Unreceived::Nothing && self.to_client.is_flushed() && lags {
            return self.move_lagging(loan);
        }
        let nothing = unreceived == Unreceived::Nothing && self.to_client.is_flushed();
        if nothing && (!self.backend_ended || self.to_client.is_ended()) {
            return Ok(Moved::Done);
        }
        if !self.is_drained(direction, loan)? {
            return Ok(Moved::Undrained);
        }
        if nothing {
            return Ok(match self.run_to_the_end(loan)? {
                Wait::Turn => Moved::Turn,
                Wait::Writable | Wait::Ended => Moved::Done,
                // What has no verdict is about to arrive, and then comes the end.
                Wait::Readable => Moved::Undrained,
            });
        }
        if matches!(unreceived, Unreceived::Aside(_)) && self.backend_standing().is_judged() {
            // What is in the router's hand goes first.
            if self.run_recorded(direction, Unreceived::Nothing, loan)? == Wait::Writable {
                return Ok(Moved::Done);
            }
            if self.is_filling(loan)? {
                return Ok(Moved::At(WITHDRAWAL_LOOK_INTERVAL));
            }
        }
        self.nothing_is_purged(unreceived, loan)?;
        let wait = self.run_recorded(direction, unreceived, loan)?;
        if wait == Wait::Writable || self.to_client.is_ended() {
            return Ok(Moved::Done);
        }
        if self.backend_ended {
            // What was diverted is about to arrive, and then comes the end.
            return Ok(Moved::Undrained);
        }
        match (unreceived, self.unreceived(direction, loan)) {
            // What came one way is read, and the rest came by the other, of which the event may
            // have been seen already.
            (Unreceived::AtSource(_), Unreceived::Aside(_))
            | (Unreceived::Aside(_), Unreceived::AtSource(_)) => Ok(Moved::Turn),
            // And the rest came without a verdict.
            (_, Unreceived::Nothing) if self.backend_standing() == Backend::Leaving => {
                Ok(Moved::Turn)
            }
            _ => Ok(wait.into()),
        }
    }

    pub(super) fn unreceived(&mut self, direction: Direction, loan: &mut Loan<'_>) -> Unreceived {
        match self.in_kernel(loan) {
            Some((session, kernel)) => kernel.unreceived(&session.enrolment, direction),
            None => Unreceived::Nothing,
        }
    }

    /// Runs a pump within its allowance, and tells the verdict program how far it came.
    fn run_recorded(
        &mut self,
        direction: Direction,
        unreceived: Unreceived,
        loan: &mut Loan<'_>,
    ) -> Result<Wait, CloseReason> {
        if let Some((session, kernel)) = self.in_kernel(loan) {
            kernel.take_in_hand(&session.enrolment, direction);
        }
        let before = self.pump_read_bytes(direction);
        let (allowance, at_source) = match unreceived {
            Unreceived::Nothing => (0, true),
            Unreceived::AtSource(bytes) => (bytes, true),
            Unreceived::Aside(bytes) => (bytes, false),
        };
        let result = match (direction, at_source) {
            (Direction::ToBackend, _) => self.run_to_backend(loan, allowance),
            (Direction::ToClient, true) => self.run_to_client(loan, allowance),
            (Direction::ToClient, false) => self.run_aside_to_client(loan, allowance),
        };
        let received = self.pump_read_bytes(direction) - before;
        let flushed = match direction {
            Direction::ToBackend => self.to_backend.is_flushed(),
            Direction::ToClient => self.to_client.is_flushed(),
        };
        if let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        {
            kernel.record(&mut session.enrolment, direction, received, flushed);
        }
        result
    }

    fn pump_read_bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::ToBackend => self.to_backend.read_bytes(),
            Direction::ToClient => self.to_client.read_bytes(),
        }
    }

    fn run_to_backend(&mut self, loan: &mut Loan<'_>, allowance: u64) -> Result<Wait, CloseReason> {
        let meter = &self.meter;
        let result = self.to_backend.run(
            &self.client,
            &self.backend,
            loan.scratch,
            allowance,
            |bytes| meter.add_to_backend(bytes),
        );
        match result {
            Ok(wait) => Ok(wait),
            Err(PumpError::Source(error)) => Err(CloseReason::ClientFailed(error.to_string())),
            // The backend is going: its last words are still to be delivered.
            Err(PumpError::Target(_)) => {
                self.nothing_was_taken_out(loan)?;
                self.to_backend.discard();
                Ok(Wait::Readable)
            }
        }
    }

    pub(super) fn run_to_client(
        &mut self,
        loan: &mut Loan<'_>,
        allowance: u64,
    ) -> Result<Wait, CloseReason> {
        let meter = &self.meter;
        let moved = |bytes| meter.add_to_client(bytes);
        self.to_client
            .run(&self.backend, &self.client, loan.scratch, allowance, moved)
            .map_err(client_or_backend)
    }

    fn run_aside_to_client(
        &mut self,
        loan: &mut Loan<'_>,
        allowance: u64,
    ) -> Result<Wait, CloseReason> {
        let Path::Kernel(session) = &self.path else {
            return Ok(Wait::Readable);
        };
        let Some(aside) = session.enrolment.aside() else {
            return Ok(Wait::Readable);
        };
        let meter = &self.meter;
        let moved = |bytes| meter.add_to_client(bytes);
        self.to_client
            .run(aside, &self.client, loan.scratch, allowance, moved)
            .map_err(client_or_backend)
    }

    fn is_drained(
        &mut self,
        direction: Direction,
        loan: &mut Loan<'_>,
    ) -> Result<bool, CloseReason> {
        let client = &self.client;
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return Ok(true);
        };
        kernel
            .is_drained(&mut session.enrolment, direction, client)
            .map_err(|error| CloseReason::ClientFailed(error.to_string()))
    }

    /// What the client sent before the enrolment is written on first; then the verdict may
    /// redirect.
    pub(super) fn open_to_backend(&mut self, loan: &mut Loan<'_>) -> Outcome {
        let Some((session, _)) = self.in_kernel(loan) else {
            return Ok(());
        };
        if session.enrolment.aside().is_none() {
            return Ok(());
        }
        self.run_recorded(Direction::ToBackend, Unreceived::Nothing, loan)?;
        self.open_when_flushed(loan);
        Ok(())
    }

    pub(super) fn open_when_flushed(&mut self, loan: &mut Loan<'_>) {
        let flushed = self.to_backend.is_flushed() && self.backend_standing().is_judged();
        if let Some((session, kernel)) = self.in_kernel(loan)
            && flushed
            && !kernel.is_open(&session.enrolment, Direction::ToBackend)
        {
            kernel.open(&session.enrolment);
        }
    }

    /// Listens for bytes of the client as long as they come to the router, and no longer.
    pub(super) fn listen_to_client(&mut self, loan: &mut Loan<'_>) {
        let held = !self.to_backend.is_flushed() || self.to_backend.is_discarding();
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return;
        };
        let (listening, held) = (session.listening_to_client, held || session.stays);
        session.listening_to_client = listen(
            kernel,
            &session.enrolment,
            Direction::ToBackend,
            held,
            listening,
        );
    }

    /// Listens for bytes of the backend as long as they come to the router, and no longer.
    fn listen_to_backend(&mut self, loan: &mut Loan<'_>) {
        let held = !self.to_client.is_flushed();
        let (Path::Kernel(session), Some(kernel)) = (&mut self.path, loan.kernel.as_deref_mut())
        else {
            return;
        };
        let (listening, held) = (session.listening_to_backend, held || session.stays);
        session.listening_to_backend = listen(
            kernel,
            &session.enrolment,
            Direction::ToClient,
            held,
            listening,
        );
    }

    fn in_kernel<'s>(
        &'s self,
        loan: &'s mut Loan<'_>,
    ) -> Option<(&'s KernelSession, &'s mut KernelAccess)> {
        match (&self.path, loan.kernel.as_deref_mut()) {
            (Path::Kernel(session), Some(kernel)) => Some((session, kernel)),
            _ => None,
        }
    }
}

/// Whether the router is to listen to the source of a direction from now on; the verdict is told.
fn listen(
    kernel: &KernelAccess,
    enrolment: &Enrolment,
    direction: Direction,
    held: bool,
    listening: bool,
) -> bool {
    let wanted = held
        || !kernel.is_open(enrolment, direction)
        || kernel.unreceived(enrolment, direction) != Unreceived::Nothing
        || kernel.is_large_turn(enrolment, direction);
    if wanted == listening {
        return listening;
    }
    let missed = kernel.set_listening(enrolment, direction, wanted);
    if !wanted && missed {
        // They came between the two looks, perhaps without a notice.
        kernel.set_listening(enrolment, direction, true);
        return true;
    }
    wanted
}

fn client_or_backend(error: PumpError) -> CloseReason {
    match error {
        PumpError::Source(error) => CloseReason::BackendFailed(error.to_string()),
        PumpError::Target(error) => CloseReason::ClientFailed(error.to_string()),
    }
}
