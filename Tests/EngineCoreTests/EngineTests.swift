import EngineCore
import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

/// What an instance decides, event by event: every pair of a phase and an event, then random lives.
@Suite struct EngineTests {
    struct Fault: Error, Equatable { let why: String }
    typealias TestedEngine = Engine<Fault>

    static func makeEngine(slots: Int = 2, pages: Int = 8, gather: UInt64 = 0) -> TestedEngine {
        var limits = SchedulerLimits(rowsPerStep: 256, prefillChunk: 128, running: slots, waiting: 4)
        limits.gatherMicroseconds = gather
        limits.gatherLimitMicroseconds = 10 * gather
        limits.waitMicroseconds = 5000
        return TestedEngine(ranks: Ranks(limits: limits, slotCount: slots, pageCount: pages))
    }

    static func request(_ id: UInt64, prompt: Int = 3, maximum: Int = 2, part: Part = .both) -> Request {
        var request = Request(id: id, prompt: (0..<UInt32(prompt)).map { $0 }, maximumTokens: maximum)
        request.part = part
        return request
    }

    /// What a step comes to whose every sampled row gives `token`.
    static func outcome(_ step: Step, token: UInt32 = 7) -> TestedEngine.Outcome {
        TestedEngine.Outcome(
            sampled: step.entries.filter(\.samples).map { ($0.id, .success(Token(id: token, logprob: 0))) },
            rows: step.entries.reduce(0) { $0 + $1.positions.count }, microseconds: 10)
    }

    // MARK: Phases and events

    enum PhaseName: String, CaseIterable, Codable { case idle, due, gathering, stepping }
    enum EventName: String, CaseIterable, Codable {
        case submit, received, transferEnded, forget, flush, due, stepDone, stepFailed
    }

    /// An engine in a phase, with request 1 known to it unless it is idle.
    private func engine(in phase: PhaseName) -> TestedEngine {
        var engine = Self.makeEngine(gather: phase == .gathering ? 100 : 0)
        guard phase != .idle else { return engine }
        _ = engine.handle(.submit(Self.request(1)), now: 0)
        if phase == .stepping { _ = engine.handle(.due, now: 1) }
        return engine
    }

    private func event(_ name: EventName, _ engine: TestedEngine) -> TestedEngine.Event {
        switch name {
        case .submit: .submit(Self.request(9))
        case .received: .received(5, transfer: Self.strayHold, nil)
        case .transferEnded: .transferEnded(Self.strayHold)
        case .forget: .forget(1)
        case .flush: .flush
        case .due: .due
        case .stepDone:
            .stepDone(
                engine.step.map { Self.outcome($0) } ?? TestedEngine.Outcome(sampled: [], rows: 0, microseconds: 1))
        case .stepFailed: .stepFailed(Fault(why: "broken"), isAway: false)
        }
    }

    /// One that no pools of these tests know.
    static let strayHold: Hold = {
        var pools = StatePools(slotCount: 1, pageCount: 1, dpRank: 40)
        guard let reservation = try? pools.reserve(tokens: 1, for: .request(1)),
            let hold = pools.hold(reservation, for: .transfer)
        else { preconditionFailure("an empty pool refuses") }
        return hold
    }()

    /// Every pair that is possible, with what comes out of it: names of actions, in order.
    @Test(arguments: PhaseName.allCases, EventName.allCases)
    func everyPhaseAnswersEveryEvent(phase: PhaseName, event name: EventName) async {
        let endsStep = name == .stepDone || name == .stepFailed
        guard !endsStep || phase == .stepping else {
            // A step cannot end that was not begun: the shell is broken, and goes no further.
            await #expect(processExitsWith: .failure) { [phase, name] in
                var engine = EngineTests().engine(in: phase)
                _ = engine.handle(EngineTests().event(name, engine), now: 2)
            }
            return
        }
        var engine = engine(in: phase)
        let actions = Self.names(engine.handle(event(name, engine), now: 2))
        let wake = phase == .idle || phase == .gathering ? ["wake"] : []
        let expected: [String] =
            switch (name, phase) {
            case (.submit, _): ["admitted 9"] + wake
            case (.received, _), (.transferEnded, _), (.flush, _): wake
            case (.forget, .idle): wake
            case (.forget, _): ["ended 1"] + wake
            case (.due, .idle): ["sleep"]
            case (.due, .stepping): []
            case (.due, _): ["compute"]
            case (.stepDone, _): ["token 1", "compute"]
            case (.stepFailed, _): ["preempted 1", "admitted 1", "compute"]
            }
        #expect(actions == expected)
    }

    static func names(_ actions: [TestedEngine.Action]) -> [String] {
        actions.map { action in
            switch action {
            case .compute: "compute"
            case .wake(at: nil): "sleep"
            case .wake: "wake"
            case .tell(let id, .admitted): "admitted \(id)"
            case .tell(let id, .decoding): "decoding \(id)"
            case .tell(let id, .token): "token \(id)"
            case .tell(let id, .preempted): "preempted \(id)"
            case .tell(let id, .promptComplete): "promptComplete \(id)"
            case .tell(let id, .ended): "ended \(id)"
            }
        }
    }

    // MARK: What holds

    private func step(_ actions: [TestedEngine.Action]) throws -> Step {
        try #require(actions.lazy.compactMap { if case .compute(let step, _) = $0 { step } else { nil } }.first)
    }

    @Test func requestsThatComeTogetherAreComputedTogether() throws {
        var engine = Self.makeEngine()
        _ = engine.handle(.submit(Self.request(1)), now: 0)
        _ = engine.handle(.submit(Self.request(2)), now: 0)
        let actions = engine.handle(.due, now: 0)
        #expect(try step(actions).entries.map(\.id) == [1, 2])
    }

    @Test func gatheringWaitsForMoreButNotForEver() {
        var engine = Self.makeEngine(gather: 100)
        var wakes: [UInt64] = []
        for time in stride(from: UInt64(0), through: 990, by: 90) {
            for case .wake(let at?) in engine.handle(.forget(77), now: time) { wakes.append(at) }
        }
        #expect(wakes == [100, 190, 280, 370, 460, 550, 640, 730, 820, 910, 1000, 1000])
    }

    @Test func aStepWithoutAPauseBeforeItContinuesTheLastOne() throws {
        var engine = Self.makeEngine()
        _ = engine.handle(.submit(Self.request(1)), now: 0)
        let first = engine.handle(.due, now: 0)
        guard case .compute(let step, continues: false) = try #require(first.last) else {
            Issue.record("the first step follows a pause")
            return
        }
        let second = engine.handle(.stepDone(Self.outcome(step)), now: 9)
        guard case .compute(_, continues: true) = try #require(second.last) else {
            Issue.record("the second one does not")
            return
        }
    }

    @Test func aRequestEndsWithItsLastTokenAndLeavesNothing() throws {
        var engine = Self.makeEngine()
        _ = engine.handle(.submit(Self.request(1, maximum: 2)), now: 0)
        var actions = engine.handle(.due, now: 0)
        actions = engine.handle(.stepDone(Self.outcome(try step(actions))), now: 1)
        #expect(engine.request(1)?.tokens == [0, 1, 2, 7])
        actions = engine.handle(.stepDone(Self.outcome(try step(actions))), now: 2)
        #expect(Self.names(actions) == ["token 1", "ended 1", "sleep"])
        guard case .tell(1, .ended(.finished(let end))) = actions[1] else {
            Issue.record("it ended otherwise")
            return
        }
        #expect(end == End(reason: .length, promptTokens: 3, completionTokens: 2))
        #expect(engine.ranks.load.slots[.free] == 2 && engine.ranks.load.pages[.free] == 8)
    }

    @Test func aServiceThatIsAwayEndsAllOfAStepAndABrokenStepIsTriedAgain() throws {
        for isAway in [false, true] {
            var engine = Self.makeEngine()
            for id in 1...2 { _ = engine.handle(.submit(Self.request(UInt64(id))), now: 0) }
            _ = engine.handle(.due, now: 0)
            let actions = engine.handle(.stepFailed(Fault(why: "x"), isAway: isAway), now: 1)
            #expect(Self.names(actions).filter { $0.hasPrefix("ended") } == (isAway ? ["ended 1", "ended 2"] : []))
            #expect(engine.request(1) == nil || !isAway)
        }
    }

    @Test func whatComesForARequestThatIsGoneIsThrownAwayAndItsMemoryIsFree() throws {
        var engine = Self.makeEngine()
        let admitted = engine.handle(.submit(Self.request(1, part: .decode)), now: 0)
        guard case .tell(1, .admitted(_, let transfer)) = try #require(admitted.first), let transfer else {
            Issue.record("it holds no memory to receive into")
            return
        }
        _ = engine.handle(.forget(1), now: 1)
        #expect(engine.ranks.load.slots[.quarantined] == 1, "what is being written is nobody else's yet")
        let actions = engine.handle(.received(1, transfer: transfer, Token(id: 3, logprob: 0)), now: 2)
        #expect(!Self.names(actions).contains("token 1"))
        #expect(engine.ranks.load.slots[.free] == 2 && engine.ranks.load.pages[.free] == 8)
    }

    @Test func whoWaitsTooLongIsTold() throws {
        var engine = Self.makeEngine(slots: 1)
        for id in 1...2 { _ = engine.handle(.submit(Self.request(UInt64(id), maximum: 300)), now: 0) }
        let due = engine.handle(.due, now: 0)
        let step = try step(due)
        let actions = engine.handle(.stepDone(Self.outcome(step)), now: 5000)
        guard case .tell(2, .ended(.waitedTooLong)) = try #require(actions.dropFirst().first) else {
            Issue.record("\(Self.names(actions))")
            return
        }
    }

    /// Random lives: each request is told of exactly one end, tokens in the number it asked for, and memory comes back.
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func everyRequestEndsOnceAndNothingIsLeft(seed: UInt64) {
        var life = EngineLife(seed: seed)
        for _ in 0..<600 { life.go() }
        life.finish()
        #expect(life.fault == nil, "seed \(seed): \(life.fault ?? "")")
    }
}

/// A shell that does what the engine says, with faults now and then.
private struct EngineLife {
    private var generator: SeededRandom
    private var engine: EngineTests.TestedEngine
    private var transfers: [UInt64: Hold] = [:]
    private var endings: [UInt64: Int] = [:]
    private var tokens: [UInt64: Int] = [:]
    private var requests: [UInt64: Request] = [:]
    private var step: Step?
    private var isDue = false
    private var now: UInt64 = 0
    private var nextID: UInt64 = 1
    private(set) var fault: String?

    init(seed: UInt64) {
        generator = SeededRandom(seed: seed)
        engine = EngineTests.makeEngine(slots: 4, pages: 12, gather: seed % 2 == 0 ? 20 : 0)
    }

    private mutating func handle(_ event: EngineTests.TestedEngine.Event) {
        for action in engine.handle(event, now: now) {
            switch action {
            case .compute(let next, _):
                if step != nil { fault = "two steps at once" }
                step = next
            case .wake(let time): isDue = time != nil
            case .tell(let id, let notice): hear(id, notice)
            }
        }
    }

    private mutating func hear(_ id: UInt64, _ notice: EngineTests.TestedEngine.Notice) {
        if endings[id] != nil { fault = "request \(id) is told something after its end" }
        switch notice {
        case .admitted(_, let transfer): transfers[id] = transfer
        case .token: tokens[id, default: 0] += 1
        case .decoding, .preempted: break
        case .promptComplete: handle(after: id)
        case .ended(let ending):
            endings[id, default: 0] += 1
            if case .finished(let end) = ending,
                end.completionTokens != tokens[id] || tokens[id] != requests[id]?.maximumTokens
            {
                fault = "request \(id) ended with \(tokens[id] ?? 0) tokens: \(end)"
            }
        }
    }

    private var handedOut: [UInt64] = []
    private mutating func handle(after id: UInt64) { handedOut.append(id) }

    mutating func go() {
        now += UInt64.random(in: 1..<40, using: &generator)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0, 1: submit()
        case 2: if let id = requests.keys.sorted().randomElement(using: &generator) { handle(.forget(id)) }
        case 3: endTransfer()
        case 4: if isDue { handle(.due) }
        default: endStep(fails: Int.random(in: 0..<25, using: &generator) == 0)
        }
        while let id = handedOut.popLast() { handle(.forget(id)) }
    }

    private mutating func submit() {
        let part = [Part.both, .both, .decode, .prefill].randomElement(using: &generator) ?? .both
        let request = EngineTests.request(
            nextID, prompt: Int.random(in: 1...300, using: &generator),
            maximum: part == .prefill ? 1 : Int.random(in: 1...40, using: &generator), part: part)
        nextID += 1
        requests[request.id] = request
        handle(.submit(request))
    }

    private mutating func endTransfer() {
        guard let id = transfers.keys.sorted().first, let hold = transfers.removeValue(forKey: id) else { return }
        let arrives = requests[id]?.part == .decode && Bool.random(using: &generator)
        if arrives {
            handle(.received(id, transfer: hold, Token(id: 1, logprob: 0)))
        } else {
            handle(.forget(id))
            handle(.transferEnded(hold))
        }
    }

    private mutating func endStep(fails: Bool) {
        if isDue, step == nil { handle(.due) }
        guard let ended = step else { return }
        step = nil
        if fails {
            handle(.stepFailed(EngineTests.Fault(why: "x"), isAway: Bool.random(using: &generator)))
        } else {
            var outcome = EngineTests.outcome(ended)
            outcome.sampled.removeAll { engine.request($0.id) == nil }
            handle(.stepDone(outcome))
        }
    }

    mutating func finish() {
        for id in requests.keys.sorted() { handle(.forget(id)) }
        while !transfers.isEmpty { endTransfer() }
        while step != nil { endStep(fails: false) }
        if let open = requests.keys.first(where: { endings[$0] != 1 }) {
            fault = fault ?? "request \(open) was told of \(endings[open] ?? 0) ends"
        }
        let load = engine.ranks.load
        if load.slots[.free] != 4 || load.pages[.free] != 12 { fault = fault ?? "left behind: \(load)" }
    }
}
