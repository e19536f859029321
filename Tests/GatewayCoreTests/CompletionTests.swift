import GatewayCore
import Scheduling
import Serving
import TestSupport
import Testing
import WireProtocol

/// What becomes of one completion, event by event: every pair of a phase and an event, then random lives.
@Suite struct CompletionTests {
    enum PhaseName: String, CaseIterable, Codable {
        case waiting, placed, refused, opening, streaming, leaving, leavingPlaced, leavingRefused, over
        /// Its time is over.
        case lateWaiting, latePlaced, lateOpening, lateStreaming
        /// Its stream stood still for too long.
        case stalled
        /// All tokens are there, and the stream has not ended.
        case whole, wholeLeaving
        /// A stop string was met, and the client has not taken the last item.
        case cut, cutLeaving

        /// When the event comes.
        var now: UInt64 {
            switch self {
            case .lateWaiting, .latePlaced, .lateOpening, .lateStreaming: CompletionTests.deadline
            case .stalled: Completion.stallMicroseconds
            default: 1
            }
        }
    }
    enum EventName: String, CaseIterable, Codable {
        case placed, moved, refused, free, opened, sign, token, delivered, ended, broke, clock, gone
    }

    private static let deadline = 2 * Completion.stallMicroseconds
    private static let refusal = Failure(code: .unavailable, message: "no")

    static func place(_ attempt: Int) -> Completion.Event {
        .placed(Placement(prefill: 1, decode: 2, attempt: attempt), name: "b:2")
    }

    /// What opens the stream of a first attempt.
    private static let open: [Completion.Event] = [place(0), .free, .opened]

    private static func completion(in phase: PhaseName) -> Completion {
        let events: [Completion.Event] =
            switch phase {
            case .waiting, .lateWaiting: []
            case .placed, .latePlaced: [place(0)]
            case .refused: [.refused(refusal)]
            case .opening, .lateOpening: [place(0), .free]
            case .streaming, .lateStreaming: open
            case .leaving: open + [.moved]
            case .leavingPlaced: open + [.moved, place(1)]
            case .leavingRefused: open + [.refused(refusal)]
            case .over: [.gone]
            case .stalled: open + [.sign(work: 7)]
            case .whole: open + (0..<4).map { .token(Token(id: $0, logprob: 0)) }
            case .wholeLeaving: open + (0..<4).map { .token(Token(id: $0, logprob: 0)) } + [.moved]
            case .cut: open + [.token(Token(id: 1, logprob: 0))]
            case .cutLeaving: open + [.token(Token(id: 1, logprob: 0)), .moved]
            }
        var request = Request(prompt: [1, 2, 3], maximumTokens: 4)
        let isCut = phase == .cut || phase == .cutLeaving
        if isCut { request.stopTexts = ["b"] }
        var completion = Completion(request)
        completion.begin(7, decoder: isCut ? Letters() : nil, deadline: deadline)
        for event in events { _ = completion.handle(event, now: 0) }
        return completion
    }

    private static func event(_ name: EventName) -> Completion.Event {
        switch name {
        case .placed: place(9)
        case .moved: .moved
        case .refused: .refused(refusal)
        case .free: .free
        case .opened: .opened
        case .sign: .sign(work: 7)
        case .token: .token(Token(id: 5, logprob: 0))
        case .delivered: .delivered
        case .ended: .ended(.stop)
        case .broke: .broke(Failure(code: .unavailable, message: "cut"))
        case .clock: .clock
        case .gone: .gone
        }
    }

    static func name(_ action: Completion.Action) -> String {
        switch action {
        case .wait: "wait"
        case .resume: "resume"
        case .open: "open"
        case .emit: "emit"
        case .cancel: "cancel"
        case .placeAgain: "again"
        case .finish: "finish"
        case .fail: "fail"
        }
    }

    /// Rows are phases, columns events in their order; – is a pair that cannot be, and traps.
    private static let table: [PhaseName: String] = [
        //               placed moved  refused free   opened sign   token  deliv. ended  broke  clock  gone
        .waiting: "      resume wait   resume  wait   –      –      –      –      –      –      wait   fail",
        .placed: "       –      wait   resume  open   –      –      –      –      –      –      wait   fail",
        .refused: "      –      –      –       fail   –      –      –      –      –      –      wait   fail",
        .opening: "      –      cancel cancel  –      wait   –      –      –      –      again  wait   fail",
        .streaming: "    –      cancel cancel  –      –      wait   emit   wait   finish again  wait   fail",
        .leaving: "      wait   wait   wait    –      cancel wait   emit   wait   finish wait   wait   fail",
        .leavingPlaced: "–      wait   wait    –      cancel wait   emit   wait   finish open   wait   fail",
        .leavingRefused: "–     –      –       –      cancel wait   emit   wait   finish fail   wait   fail",
        .over: "         –      –      –       –      –      –      –      –      –      –      –      –",
        .lateWaiting: "  resume wait   resume  fail   –      –      –      –      –      –      wait   fail",
        .latePlaced: "   –      wait   resume  fail   –      –      –      –      –      –      wait   fail",
        .lateOpening: "  –      cancel cancel  –      wait   –      –      –      –      fail   wait   fail",
        .lateStreaming: "–      cancel cancel  –      –      wait   emit   wait   finish fail   wait   fail",
        .stalled: "      –      cancel cancel  –      –      wait   emit   wait   finish again  again  fail",
        .whole: "        –      cancel cancel  –      –      wait   emit   wait   finish finish wait   fail",
        .wholeLeaving: " wait   wait   wait    –      cancel wait   emit   wait   finish finish wait   fail",
        .cut: "          –      cancel cancel  –      –      wait   –      finish finish –      wait   fail",
        .cutLeaving: "   wait   wait   wait    –      cancel wait   –      finish finish –      wait   fail",
    ]

    private static func wanted(_ phase: PhaseName) throws -> [String] {
        let words = try #require(table[phase], "\(phase)").split(separator: " ").map(String.init)
        try #require(words.count == EventName.allCases.count, "\(phase)")
        return words
    }

    @Test(arguments: PhaseName.allCases)
    func everyPhaseAnswersEveryEvent(phase: PhaseName) async throws {
        for (name, wanted) in zip(EventName.allCases, try Self.wanted(phase)) {
            // Here, so that what traps is the event.
            var completion = Self.completion(in: phase)
            guard wanted != "–" else {
                await expectTrap(phase, name)
                continue
            }
            let action = completion.handle(Self.event(name), now: phase.now)
            #expect(Self.name(action) == wanted, "\(phase), \(name)")
        }
    }

    /// The shell, or placement, is broken, and goes no further.
    private func expectTrap(_ phase: PhaseName, _ event: EventName) async {
        await #expect(processExitsWith: .failure, "\(phase), \(event)") { [phase, event] in
            var completion = CompletionTests.completion(in: phase)
            _ = completion.handle(CompletionTests.event(event), now: phase.now)
        }
    }

    // MARK: What holds

    @Test func aStopStringEndsItWithTheTextBefore() {
        var request = Request(prompt: [1], maximumTokens: 9)
        request.stopTexts = ["b"]
        var completion = Completion(request, keeping: .items)
        completion.begin(1, decoder: Letters(), deadline: .max)
        for event in Self.open { _ = completion.handle(event, now: 0) }
        #expect(completion.handle(.token(Token(id: 0, logprob: 0)), now: 0) == .emit(Self.item("a", 0)))
        #expect(completion.handle(.delivered, now: 0) == .wait)
        #expect(completion.handle(.token(Token(id: 1, logprob: 0)), now: 0) == .emit(Self.item("", 1)))
        #expect(completion.handle(.delivered, now: 0) == .finish(tail: ""))
        #expect(completion.end == End(reason: .stop, promptTokens: 1, completionTokens: 2))
        #expect(completion.items.map(\.text).joined() == "a")
    }

    @Test func anAttemptThatBreaksAfterTheLastTokenIsAnEnd() {
        var completion = Self.completion(in: .streaming)
        for id in 0..<4 as Range<UInt32> { _ = completion.handle(.token(Token(id: id, logprob: 0)), now: 0) }
        #expect(completion.handle(Self.event(.broke), now: 0) == .finish(tail: ""))
        #expect(completion.end?.reason == .length)
    }

    @Test func whoseTimeIsOverIsToldSoWhereverItIs() {
        for phase in [PhaseName.waiting, .placed] {
            var completion = Self.completion(in: phase)
            guard case .fail(let failure) = completion.handle(.free, now: Self.deadline) else {
                Issue.record("\(phase) goes on")
                continue
            }
            #expect(failure.code == .deadlineExceeded)
        }
        var completion = Self.completion(in: .streaming)
        let failure = Failure(code: .deadlineExceeded, message: "b:2: cut")
        #expect(completion.handle(Self.event(.broke), now: Self.deadline) == .fail(failure))
    }

    @Test func whatInstancesDisagreeAboutIsTriedOnceMore() {
        var completion = Self.completion(in: .streaming)
        let failure = Failure(code: .invalidArgument, message: "odd")
        guard case .placeAgain(let loss) = completion.handle(.broke(failure), now: 0) else {
            Issue.record("it is not placed again")
            return
        }
        #expect(loss.failure == failure && loss.blame == .nobody && completion.disagreements == 1)
        for event in [.moved, Self.place(1), .free] { _ = completion.handle(event, now: 0) }
        #expect(completion.handle(.broke(failure), now: 0) == .fail(Failure(code: .internal, message: "b:2: odd")))
        #expect(completion.disagreements == 2)
    }

    @Test func aStreamThatStandsStillIsTakenElsewhere() {
        var completion = Self.completion(in: .streaming)
        _ = completion.handle(.sign(work: 1), now: 10)
        let limit = Completion.stallMicroseconds
        #expect(completion.handle(.clock, now: limit) == .wait)
        guard case .placeAgain(let loss) = completion.handle(.clock, now: 10 + limit) else {
            Issue.record("it stays")
            return
        }
        #expect(loss.blame == .called && loss.failure.message == "b:2 made no headway with the request for 30 s")
        #expect(completion.handle(.moved, now: limit + 10) == .wait && !completion.isWaiting)
    }

    /// Random lives: no token is lost or comes twice, the text is whole, and there is one end.
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func everyTokenComesOnceAndThereIsOneEnd(seed: UInt64) {
        for life in 0..<20 as Range<UInt64> {
            var life = CompletionLife(seed: seed << 8 | life)
            life.run()
            #expect(life.fault == nil, "seed \(seed): \(life.fault ?? "")")
        }
    }

    static func item(_ text: String, _ id: UInt32) -> GenerateItem {
        GenerateItem(text: text, tokens: [Token(id: id, logprob: 0)])
    }
}

/// Ids are letters.
private struct Letters: TextDecoder {
    var held = ""
    mutating func append(_ id: UInt32) -> String { String(UnicodeScalar(UInt8(97 + id % 26))) }
    mutating func flush() -> String { "!" }
}

/// A shell and a placement that do as they like, and a stream that goes on from what is known.
private struct CompletionLife {
    private enum Shell { case idle, opening, streaming, over }
    private enum Place { case none, given, refused }

    private var generator: SeededRandom
    private var completion: Completion
    private var shell = Shell.idle
    private var place = Place.none
    private var attempt = 0
    private var now: UInt64 = 0
    private var tokens: [UInt32] = []
    private var text = ""
    private let maximum: Int
    private(set) var fault: String?

    init(seed: UInt64) {
        generator = SeededRandom(seed: seed)
        maximum = Int.random(in: 1...12, using: &generator)
        completion = Completion(Request(prompt: [1], maximumTokens: maximum))
        completion.begin(seed, decoder: Letters(), deadline: .max)
    }

    private mutating func chance(_ share: Int) -> Bool { Int.random(in: 0..<share, using: &generator) == 0 }

    mutating func run() {
        var steps = 0
        while shell != .over, fault == nil {
            steps += 1
            if steps > 100_000 { fault = "it does not end" }
            now += UInt64.random(in: 0...3_000_000, using: &generator)
            if chance(3) { decide() } else { work() }
        }
        let wanted = (0..<UInt32(tokens.count)).map { $0 }
        if tokens != wanted || tokens.count != completion.request.generatedCount { fault = "tokens are \(tokens)" }
        guard let end = completion.end else { return }
        if tokens.count != maximum || end.completionTokens != maximum { fault = "it ended as \(end)" }
        if text != String(String.UnicodeScalarView(wanted.map { UnicodeScalar(UInt8(97 + $0)) })) + "!" {
            fault = "its text is \(text)"
        }
    }

    /// Placement does something of its own.
    private mutating func decide() {
        switch place {
        case .none: chance(20) ? refuse() : give()
        case .given where chance(4): chance(10) ? refuse() : move()
        case .given where chance(8): tell(.clock)
        case .given, .refused: if chance(40) { tell(.gone) }
        }
    }

    private mutating func give() {
        place = .given
        attempt += 1
        tell(CompletionTests.place(attempt - 1))
    }

    private mutating func move() {
        place = .none
        tell(.moved)
    }

    private mutating func refuse() {
        place = .refused
        tell(.refused(Failure(code: .unavailable, message: "no")))
    }

    /// The shell's turn.
    private mutating func work() {
        switch shell {
        case .idle: tell(.free)
        case .opening where chance(5): lose()
        case .opening:
            shell = .streaming
            tell(.opened)
        case .streaming where chance(9): lose()
        case .streaming where chance(5): tell(.sign(work: UInt64.random(in: 0...2, using: &generator)))
        case .streaming where tokens.count == maximum: tell(.ended(.length))
        case .streaming: tell(.token(Token(id: UInt32(tokens.count), logprob: 0)))
        case .over: break
        }
    }

    private mutating func lose() {
        shell = .idle
        tell(.broke(Failure(code: .unavailable, message: "cut")))
    }

    private mutating func tell(_ event: Completion.Event) {
        let wasStreaming = shell == .streaming
        switch completion.handle(event, now: now) {
        case .wait, .resume, .cancel: break
        case .open(let placement):
            if place != .given || placement.attempt != attempt - 1 { fault = "it opens what it was not given" }
            shell = .opening
        case .emit(let item):
            if !wasStreaming { fault = "an item comes without a stream" }
            tokens += item.tokens.map(\.id)
            text += item.text
            tell(.delivered)
        case .placeAgain: chance(10) ? refuse() : move()
        case .finish(let tail):
            text += tail
            shell = .over
        case .fail: shell = .over
        }
    }
}
