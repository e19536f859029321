import Scheduling
import Serving
import StatePools

/// What an attention instance decides, as a value: which step is computed when, what becomes of its tokens, who hears of
/// it. It owns the ranks with their schedulers and pools; the shell around it owns the loop, the memory and the kernels,
/// tells what happens and does what comes out.
///
/// | phase | something changed | `due` | a step ended |
/// |---|---|---|---|
/// | idle | asks to be woken | – | traps |
/// | due | – | plans | traps |
/// | gathering | waits a little longer for more | plans | traps |
/// | stepping | is planned for next | – | delivers, plans |
///
/// `Failure` is what the shell's calls fail with; it passes through.
public struct Engine<Failure: Error>: Sendable {
    /// What happens to an instance.
    public enum Event: Sendable {
        /// A request comes, under a number that is not in use.
        case submit(Request)
        /// The prompt's state has been written in full, with the token that was sampled after it, if one was. The sender
        /// had the state of the first `cached` tokens already.
        case received(UInt64, transfer: Hold, Token?, cached: Int = 0)
        /// Nothing is read or written through the transfer any more.
        case transferEnded(Hold)
        /// Nobody waits for the request.
        case forget(UInt64)
        /// What is kept of requests shall serve no others.
        case flush
        /// The time that was asked for has come.
        case due
        /// The step that was planned is computed.
        case stepDone(Outcome)
        /// It failed half-way. A service that is away would fail it again: then all of its requests are given up.
        case stepFailed(Failure, isAway: Bool)
    }

    /// What a step came to.
    public struct Outcome: Sendable {
        /// A token, or why there is none, for each row that was to be sampled and whose request was there.
        public var sampled: [(id: UInt64, result: Result<Token, Failure>)]
        /// Rows that were computed.
        public var rows: Int
        /// How long it took, for the scheduler to learn from.
        public var microseconds: UInt64

        /// An outcome.
        public init(sampled: [(id: UInt64, result: Result<Token, Failure>)], rows: Int, microseconds: UInt64) {
            self.sampled = sampled
            self.rows = rows
            self.microseconds = microseconds
        }
    }

    /// What the shell has to do, in this order.
    public enum Action: Sendable {
        /// Compute this step and tell what it came to. `continues` when it follows the last one without a pause.
        case compute(Step, continues: Bool)
        /// Tell `due` at that time, which replaces what was asked for before; nil for never.
        case wake(at: UInt64?)
        /// Tell whoever waits for the request.
        case tell(UInt64, Notice)
    }

    /// What a request's call hears.
    public enum Notice: Sendable {
        /// It holds memory. `transfer` is open when state is received or handed out, and the memory stays untouched by
        /// others until it is ended.
        case admitted(Reservation, transfer: Hold?)
        /// Its state was received; it decodes.
        case decoding
        /// One more token; with the first one, how many tokens of the prompt had their state kept.
        case token(Token, cached: Int)
        /// It gave its memory up; its tokens are computed again.
        case preempted
        /// The whole prompt is computed; what is handed out is complete.
        case promptComplete
        /// It is over. Nothing more is told.
        case ended(Ending)
    }

    /// How a request ended here.
    public enum Ending: Sendable {
        /// It generated all it could.
        case finished(End)
        /// It was not taken in.
        case refused(AdmissionRefusal)
        /// It waited too long for memory.
        case waitedTooLong
        /// Nobody waited for it any more.
        case forgotten
        /// What was needed for it failed.
        case failed(Failure)
    }

    private enum Phase: Sendable {
        case idle
        /// Will be told that it is due in a moment, so that what comes together is planned together.
        case due
        /// Waits for more to come, until `limit` at the latest.
        case gathering(limit: UInt64)
        case stepping(Step)
    }

    /// The ranks with what they hold.
    public private(set) var ranks: Ranks
    /// Steps that were computed.
    public private(set) var steps: Int64 = 0
    /// Rows that were computed.
    public private(set) var rows: Int64 = 0
    private var phase = Phase.idle
    private var actions: [Action] = []

    /// An engine without requests.
    public init(ranks: Ranks) { self.ranks = ranks }

    /// A request that is here, with the tokens that are known.
    public func request(_ id: UInt64) -> Request? { ranks.request(id) }

    /// The step that is being computed.
    public var step: Step? { if case .stepping(let step) = phase { step } else { nil } }

    /// Takes in what happened at `now`, microseconds of the shell's clock.
    public mutating func handle(_ event: Event, now: UInt64) -> [Action] {
        precondition(actions.isEmpty, "an event came in the middle of another")
        defer { actions = [] }
        switch event {
        case .submit(let request): submit(request, now: now)
        case .received(let id, let transfer, let token, let cached): received(id, transfer, token, cached)
        case .transferEnded(let transfer): ranks.endTransfer(transfer)
        case .forget(let id): end(id, .forgotten)
        case .flush: ranks.flushPrefixes()
        case .due: return due(now: now)
        case .stepDone(let outcome): return stepDone(outcome, now: now)
        case .stepFailed(let failure, let isAway): return stepFailed(failure, isAway: isAway, now: now)
        }
        wake(now: now)
        return actions
    }

    // MARK: Requests

    private mutating func submit(_ request: Request, now: UInt64) {
        if case .rejected(let refusal) = ranks.submit(request, now: now) {
            actions.append(.tell(request.id, .ended(.refused(refusal))))
        }
        tellEvents()
    }

    /// One that is gone was told so when it went; what came for it is thrown away.
    private mutating func received(_ id: UInt64, _ transfer: Hold, _ token: Token?, _ cached: Int) {
        guard ranks.received(id: id, transfer: transfer, cached: cached) else { return }
        actions.append(.tell(id, .decoding))
        guard let token, ranks.request(id)?.generatedCount == 0 else { return }
        deliver(token, to: id)
    }

    private mutating func deliver(_ token: Token, to id: UInt64) {
        guard ranks.append(token.id, to: id), let request = ranks.request(id) else { return }
        assert(request.tokens.last == token.id, "request \(id) knows the token that is told of")
        actions.append(.tell(id, .token(token, cached: request.generatedCount == 1 ? request.cachedCount : 0)))
        if request.part != .prefill, let end = request.end { self.end(id, .finished(end)) }
    }

    private mutating func end(_ id: UInt64, _ ending: Ending) {
        guard ranks.request(id) != nil else { return }
        ranks.remove(id: id)
        assert(ranks.request(id) == nil, "request \(id) has ended and is here")
        actions.append(.tell(id, .ended(ending)))
    }

    /// Passes on what the schedulers decided outside of steps.
    private mutating func tellEvents() {
        for event in ranks.takeEvents() {
            switch event {
            case .admitted(let id, let reservation, let transfer):
                actions.append(.tell(id, .admitted(reservation, transfer: transfer)))
            case .expired(let id): actions.append(.tell(id, .ended(.waitedTooLong)))
            case .promptComplete(let id): actions.append(.tell(id, .promptComplete))
            case .preempted(let id): actions.append(.tell(id, .preempted))
            }
        }
    }

    // MARK: Steps

    /// Something may be there to compute.
    private mutating func wake(now: UInt64) {
        let limits = ranks.limits
        switch phase {
        case .stepping, .due: break
        case .idle where limits.gatherMicroseconds == 0:
            phase = .due
            actions.append(.wake(at: now))
        case .idle: gather(until: now + limits.gatherLimitMicroseconds, now: now)
        case .gathering(let limit): gather(until: limit, now: now)
        }
    }

    private mutating func gather(until limit: UInt64, now: UInt64) {
        phase = .gathering(limit: limit)
        actions.append(.wake(at: min(now + ranks.limits.gatherMicroseconds, max(limit, now))))
    }

    private mutating func due(now: UInt64) -> [Action] {
        if case .stepping = phase { return actions }
        plan(now: now, continues: false)
        return actions
    }

    /// Plans until there is nothing to compute.
    private mutating func plan(now: UInt64, continues: Bool) {
        precondition(self.step == nil, "a step is planned while another one is computed")
        let step = ranks.planStep(now: now)
        tellEvents()
        guard step.isEmpty else {
            phase = .stepping(step)
            actions.append(.compute(step, continues: continues))
            return
        }
        phase = .idle
        actions.append(.wake(at: ranks.nextExpiry.map { max($0, now + 1) }))
    }

    private mutating func stepDone(_ outcome: Outcome, now: UInt64) -> [Action] {
        let step = leaveStep()
        assert(outcome.sampled.count <= step.entries.count, "a step gives each of its requests a token at most")
        steps += 1
        rows += Int64(outcome.rows)
        ranks.complete(step, microseconds: outcome.microseconds)
        for (id, result) in outcome.sampled {
            switch result {
            case .success(let token): deliver(token, to: id)
            case .failure(let failure): end(id, .failed(failure))
            }
        }
        tellEvents()
        plan(now: now, continues: true)
        return actions
    }

    private mutating func stepFailed(_ failure: Failure, isAway: Bool, now: UInt64) -> [Action] {
        let step = leaveStep()
        let lost = ranks.abandon(step)
        tellEvents()
        for id in lost { actions.append(.tell(id, .ended(.failed(failure)))) }
        // Another instance may reach what this one could not, and who asks should hear of it.
        if isAway { for entry in step.entries { end(entry.id, .failed(failure)) } }
        plan(now: now, continues: true)
        return actions
    }

    private mutating func leaveStep() -> Step {
        guard case .stepping(let step) = phase else {
            preconditionFailure("a step ended while the engine was \(phase)")
        }
        phase = .idle
        return step
    }
}
