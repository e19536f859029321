import Scheduling
import Serving
import WireProtocol

/// Token ids in, whole characters out.
public protocol TextDecoder: Sendable {
    /// The text that became complete with `id`.
    mutating func append(_ id: UInt32) -> String
    /// What is left at the end of a stream.
    mutating func flush() -> String
}

/// One answer to one prompt on its whole way through the gateway, over all its attempts: where it runs, what has come of
/// it, and what a failure comes to. A value; the shell around it owns the stream to the instance and the client.
///
/// | phase | placement | `free` | the attempt's stream | `clock` |
/// |---|---|---|---|---|
/// | waiting | is heard of, and the shell told to look | opens, waits or fails | traps | – |
/// | opening | takes the attempt away | traps | opens or breaks | – |
/// | streaming | takes the attempt away | traps | gives signs, tokens, its end, or breaks | takes a stalled one away |
/// | leaving | is heard of | traps | may still give tokens and its end; breaks | – |
/// | over | traps | traps | traps | traps |
///
/// Every event has one answer, so that a token costs no list of them.
package struct Completion: Sendable {
    /// What happens to a completion.
    package enum Event: Sendable {
        /// It has a place; `name` is `host:port` of the instance that decodes.
        case placed(Placement, name: String)
        /// Its place was taken back; another comes, or a refusal.
        case moved
        /// It gets no place any more.
        case refused(Failure)
        /// The shell has nothing at hand for it: no stream, no item.
        case free
        /// The attempt's stream is open.
        case opened
        /// The attempt's instance says how much work it has done.
        case sign(work: UInt64)
        /// The attempt's next token.
        case token(Token, cached: Int = 0)
        /// The client has taken the last item.
        case delivered
        /// The stream ended in order.
        case ended(End.Reason)
        /// There is no stream, or none any more.
        case broke(Failure)
        /// Clocks are looked at.
        case clock
        /// Its client has left.
        case gone
    }

    /// What the shell has to do.
    package enum Action: Sendable, Equatable {
        /// Nothing until the next event.
        case wait
        /// Let whoever waits with nothing at hand say `free` again.
        case resume
        /// Open a stream for the request there, and tell what comes of it.
        case open(Placement)
        /// Give the client this, and say `delivered`.
        case emit(GenerateItem)
        /// Cancel the stream, which will break.
        case cancel
        /// Cancel the stream, if there is one, and tell the fleet.
        case placeAgain(Loss)
        /// It is over: give the client what is left of the text, if anything, and its `end`.
        case finish(tail: String)
        /// It is over: tell the client why.
        case fail(Failure)
    }

    /// An attempt that failed, as the fleet has to hear of it.
    package struct Loss: Sendable, Equatable {
        /// Where it ran.
        package let placement: Placement
        /// What it failed of.
        package let failure: Failure
        /// Whose breaker counts it.
        package let blame: FaultTable.Blame
    }

    /// What placement has said and nobody has acted on.
    private enum Outlook: Sendable {
        case none
        case placed(Placement, name: String)
        case refused(Failure)
    }

    private enum Phase: Sendable {
        case waiting(Outlook)
        case opening(Placement, name: String)
        case streaming(Placement, name: String)
        /// Its attempt is over for placement, and its stream is not yet.
        case leaving(Outlook)
        case over
    }

    /// What of the answer is kept.
    package enum Keeping: Sendable { case counts, text, items }

    /// A stream may stand still for so long before it is taken elsewhere.
    package static let stallMicroseconds: UInt64 = 30_000_000

    /// The request with the tokens so far.
    package private(set) var request: Request
    /// Its number in the answer of the interface.
    package let index: Int
    /// True for the first of the answers to its prompt.
    package let isFirstOfPrompt: Bool
    /// The prompt to begin the answer with.
    package let echo: String
    /// Items so far, when they are kept.
    package private(set) var items: [GenerateItem] = []
    /// Text so far, when it is kept.
    package private(set) var text = ""
    /// Characters (Unicode scalars) of text before the last item.
    package private(set) var offset = 0
    /// How it ended.
    package private(set) var end: End?
    /// How often an instance refused what was checked here, or answered what makes no sense.
    package private(set) var disagreements = 0
    /// When its time is over, microseconds.
    package private(set) var deadline = UInt64.max
    private let keeping: Keeping
    private var phase = Phase.waiting(.none)
    private var lastAttempt = -1
    private var clock = ProgressClock(limitMicroseconds: stallMicroseconds)
    private var decoder: (any TextDecoder)?
    private var matcher: StopMatcher
    private var lastLength = 0
    private var isCut = false

    /// A completion of which nothing has come.
    package init(
        _ request: Request, index: Int = 0, isFirstOfPrompt: Bool = true, echo: String = "", keeping: Keeping = .counts
    ) {
        self.request = request
        self.index = index
        self.isFirstOfPrompt = isFirstOfPrompt
        self.echo = echo
        self.keeping = keeping
        matcher = StopMatcher(stops: request.stopTexts, minimumTokens: request.minimumTokens)
    }

    /// Gives it its number, what makes text of its tokens, and the end of its time.
    package mutating func begin(_ id: UInt64, decoder: (any TextDecoder)?, deadline: UInt64) {
        precondition(lastAttempt < 0 && request.generatedCount == 0, "completion \(request.id) has begun")
        request.id = id
        self.decoder = decoder
        self.deadline = deadline
    }

    /// True while only placement can say what comes next.
    package var isWaiting: Bool { if case .waiting(.none) = phase { true } else { false } }

    /// Takes in what happened at `now`, microseconds of the shell's clock.
    package mutating func handle(_ event: Event, now: UInt64) -> Action {
        switch (event, phase) {
        case (_, .over): impossible(event)
        case (.placed(let placement, let name), _): return placed(placement, name)
        case (.moved, _): return moved(.none)
        case (.refused(let failure), _): return moved(.refused(failure))
        case (.free, .waiting(let outlook)): return proceed(outlook, now: now)
        case (.opened, .opening(let placement, let name)):
            phase = .streaming(placement, name: name)
            clock = ProgressClock(limitMicroseconds: Self.stallMicroseconds)
            return .wait
        case (.opened, .leaving): return .cancel
        case (.sign(let work), .streaming): clock.sign(work: work, now: now)
        case (.sign, .leaving): return .wait
        case (.token(let token, let cached), .streaming), (.token(let token, let cached), .leaving):
            return take(token, cached, now: now)
        case (.delivered, .streaming), (.delivered, .leaving): return isCut ? finish(.stop) : .wait
        case (.ended(let reason), .streaming), (.ended(let reason), .leaving): return finish(reason)
        case (.broke(let failure), _): return broke(failure, now: now)
        case (.clock, _): return look(now: now)
        case (.gone, _): return fail(Failure(code: .cancelled, message: "the request was cancelled"))
        case (.free, _), (.opened, _), (.sign, _), (.token, _), (.delivered, _), (.ended, _):
            impossible(event)
        }
        return .wait
    }

    private func impossible(_ event: Event) -> Never {
        preconditionFailure("completion \(request.id) was told \(event) while it was \(phase)")
    }

    // MARK: Its place

    private mutating func placed(_ placement: Placement, _ name: String) -> Action {
        precondition(placement.attempt > lastAttempt, "attempt \(placement.attempt) of \(request.id) was made before")
        lastAttempt = placement.attempt
        switch phase {
        case .waiting(.none):
            phase = .waiting(.placed(placement, name: name))
            return .resume
        case .leaving(.none):
            phase = .leaving(.placed(placement, name: name))
            return .wait
        default: preconditionFailure("completion \(request.id) was placed while it was \(phase)")
        }
    }

    private mutating func moved(_ outlook: Outlook) -> Action {
        switch phase {
        case .waiting(.refused), .leaving(.refused), .over:
            preconditionFailure("completion \(request.id) was given up, and then moved")
        case .waiting:
            phase = .waiting(outlook)
            if case .refused = outlook { return .resume }
            return .wait
        case .leaving:
            phase = .leaving(outlook)
            return .wait
        case .opening, .streaming:
            phase = .leaving(outlook)
            return .cancel
        }
    }

    private mutating func proceed(_ outlook: Outlook, now: UInt64) -> Action {
        precondition(end == nil, "completion \(request.id) has ended and goes on")
        switch outlook {
        case .refused(let failure): return fail(failure)
        case .placed(let placement, let name):
            guard now < deadline else {
                return fail(Failure(code: .deadlineExceeded, message: "\(name): the request's time is over"))
            }
            phase = .opening(placement, name: name)
            return .open(placement)
        case .none:
            guard now >= deadline else { return .wait }
            let sentence = "the request's time was over before an instance had room"
            return fail(Failure(code: .deadlineExceeded, message: sentence))
        }
    }

    // MARK: Its attempts

    private mutating func broke(_ failure: Failure, now: UInt64) -> Action {
        precondition(end == nil && !isCut, "completion \(request.id) has ended and breaks")
        if request.end != nil { return finish(nil) }
        switch phase {
        case .opening(let placement, let name), .streaming(let placement, let name):
            return decide(failure, placement, name, now: now)
        case .leaving(let outlook):
            phase = .waiting(outlook)
            return proceed(outlook, now: now)
        case .waiting, .over: impossible(.broke(failure))
        }
    }

    private mutating func decide(
        _ failure: Failure, _ placement: Placement, _ name: String, now: UInt64
    ) -> Action {
        let progress: FaultTable.Phase =
            now >= deadline ? .timeUp : request.generatedCount == 0 ? .prompt : .tokens
        let verdict = FaultTable.verdict(failure.code, at: FaultTable.Place(failure.link), in: progress)
        if verdict.retry == .once { disagreements += 1 }
        guard verdict.retry != .never, disagreements < 2 else {
            return fail(Failure(code: verdict.answer, message: "\(name): \(failure.message)"))
        }
        phase = .waiting(.none)
        return .placeAgain(Loss(placement: placement, failure: failure, blame: verdict.blame))
    }

    private mutating func look(now: UInt64) -> Action {
        guard case .streaming(let placement, let name) = phase, clock.isStalled(now: now) else { return .wait }
        precondition(placement.attempt == lastAttempt, "an earlier attempt of \(request.id) streams")
        phase = .leaving(.none)
        let sentence = "\(name) made no headway with the request for \(Self.stallMicroseconds / 1_000_000) s"
        let failure = Failure(code: .unavailable, message: sentence)
        return .placeAgain(Loss(placement: placement, failure: failure, blame: .called))
    }

    // MARK: Its answer

    /// The item of one more token; an end token has no text, and a stop string ends the text before it.
    private mutating func take(_ token: Token, _ cached: Int, now: UInt64) -> Action {
        precondition(end == nil && !isCut, "completion \(request.id) has ended and goes on")
        clock.token(now: now)
        if request.generatedCount == 0 { request.cachedCount = min(cached, request.promptCount) }
        request.append(token.id)
        let isStop = request.stopTokens.contains(token.id)
        let step = matcher.append(isStop ? "" : decoder?.append(token.id) ?? "")
        isCut = step.stopped
        let item = GenerateItem(text: step.text, tokens: [token])
        record(item)
        return .emit(item)
    }

    private mutating func record(_ item: GenerateItem) {
        precondition(item.tokens.count <= request.generatedCount, "an item has more tokens than came")
        offset += lastLength
        lastLength = item.text.unicodeScalars.count
        switch keeping {
        case .counts: break
        case .text: text += item.text
        case .items: items.append(item)
        }
    }

    /// Ends it with the text that was held back; there is none after a stop string.
    private mutating func finish(_ reason: End.Reason?) -> Action {
        precondition(end == nil, "completion \(request.id) ends twice")
        var tail = ""
        if !isCut {
            let rest = matcher.append(decoder?.flush() ?? "")
            tail = rest.text + (rest.stopped ? "" : matcher.flush())
        }
        if !tail.isEmpty { record(GenerateItem(text: tail, tokens: [])) }
        end = End(
            reason: reason ?? request.end?.reason ?? .length, promptTokens: request.promptCount,
            completionTokens: request.generatedCount, cachedTokens: request.cachedCount)
        phase = .over
        return .finish(tail: tail)
    }

    private mutating func fail(_ failure: Failure) -> Action {
        precondition(end == nil, "completion \(request.id) ended and fails")
        phase = .over
        return .fail(failure)
    }
}
