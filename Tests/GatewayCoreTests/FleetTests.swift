import GatewayCore
import Scheduling
import Serving
import TestSupport
import Testing
import WireProtocol

/// Who is there and what runs where, event by event: every pair of an instance's state and an event, then random lives.
@Suite struct FleetTests {
    enum StateName: String, CaseIterable, Codable {
        case unknown, silent, serving, busy, leaving
        /// A request waits for the first instance to answer.
        case waiting
        /// It cannot call what it needs.
        case broken
        /// It was lost, and its request waits.
        case lost
        /// It left, and came back before its request ended.
        case returning
    }
    enum EventName: String, CaseIterable, Codable {
        case found, vanished, answered, failed, submit, firstToken, broke, ended, due
    }

    static let capacity = Capacity(requests: 2, tokens: 1024)

    static func answered(_ instance: Int = 0, generation: UInt64 = 1, fault: String? = nil) -> Fleet.Event {
        .answered(instance: instance, generation: generation, capacity, fault: fault)
    }

    static func failed(_ instance: Int = 0, connected: Bool = false) -> Fleet.Event {
        .failed(instance: instance, Failure(code: .mismatch, message: "lost"), isConnected: connected)
    }

    static func submit(_ id: UInt64, prompt: Int = 3) -> Fleet.Event {
        .submit(Request(id: id, promptCount: prompt, maximumTokens: 8), prefix: [])
    }

    private static func fleet(in state: StateName) -> Fleet {
        let events: [Fleet.Event] =
            switch state {
            case .unknown: []
            case .silent: [event(.found)]
            case .serving: [event(.found), answered()]
            case .busy: [event(.found), answered(), submit(1)]
            case .leaving: [event(.found), answered(), submit(1), event(.vanished)]
            case .waiting: [event(.found), submit(1)]
            case .broken: [event(.found), answered(), answered(fault: "no experts")]
            case .lost: [event(.found), answered(), submit(1), failed()]
            case .returning: [event(.found), answered(), submit(1), event(.vanished), event(.found)]
            }
        var fleet = Fleet(limits: PlacementLimits(), policy: .leastLoaded)
        for event in events { _ = fleet.handle(event, now: 0) }
        return fleet
    }

    private static func event(_ name: EventName) -> Fleet.Event {
        switch name {
        case .found: .found(.both, address: "a:1")
        case .vanished: .vanished(.both, address: "a:1")
        case .answered: answered()
        case .failed: failed()
        case .submit: submit(2)
        case .firstToken: .firstToken(1, attempt: 0)
        case .broke: .broke(1, loss())
        case .ended: .ended(1)
        case .due: .due
        }
    }

    /// What a completion says of its first attempt, made by one.
    private static func loss(_ failure: Failure = Failure(code: .unavailable, message: "cut")) -> Completion.Loss {
        var completion = Completion(Request(prompt: [1], maximumTokens: 2))
        let place = Placement(prefill: 0, decode: 0, attempt: 0)
        for event in [.placed(place, name: "a:1"), .free] as [Completion.Event] { _ = completion.handle(event, now: 0) }
        guard case .placeAgain(let loss) = completion.handle(.broke(failure), now: 0) else {
            preconditionFailure("a first failure is not the last")
        }
        return loss
    }

    static func names(_ actions: [Fleet.Action]) -> String {
        actions.compactMap { action in
            switch action {
            case .connect(let instance, _): "connect\(instance)"
            case .disconnect(let instance): "disconnect\(instance)"
            case .tell(let id, .placed): "placed\(id)"
            case .tell(let id, .moved): "moved\(id)"
            case .tell(let id, .refused): "refused\(id)"
            case .tell(let id, _): "nonsense\(id)"
            case .expired(let id, _): "expired\(id)"
            case .wake: nil
            }
        }.joined(separator: "+")
    }

    /// Rows are states, columns events in their order; . is nothing, – a pair that cannot be, and traps.
    private static let table: [StateName: String] = [
        //         found     vanished    answered failed              submit  firstToken broke          ended       due
        .unknown: "connect0  .           –        –                   .       .          .              .           .",
        .silent: " .         disconnect0 .        .                   .       .          .              .           .",
        .serving: ".         disconnect0 .        .                   placed2 .          .              .           .",
        .busy: "   .         .           .        moved1              placed2 .          moved1+placed1 .           .",
        .leaving:
            ".         .           .        moved1+disconnect0  .       .          moved1+disconnect0 disconnect0 .",
        .waiting: ".         disconnect0 placed1  .                   .       .          .              .           .",
        .broken: " .         disconnect0 .        .                   .       .          .              .           .",
        .lost: "   .         disconnect0 placed1  .                   .       .          .              .           .",
        .returning:
            ".         .           .        .                   .       .          moved1         .           .",
    ]

    private static func wanted(_ state: StateName) throws -> [String] {
        let words = try #require(table[state], "\(state)").split(separator: " ").map(String.init)
        try #require(words.count == EventName.allCases.count, "\(state)")
        return words
    }

    @Test(arguments: StateName.allCases)
    func everyStateAnswersEveryEvent(state: StateName) async throws {
        for (name, wanted) in zip(EventName.allCases, try Self.wanted(state)) {
            // Here, so that what traps is the event.
            var fleet = Self.fleet(in: state)
            guard wanted != "–" else {
                await expectTrap(state, name)
                continue
            }
            let actions = fleet.handle(Self.event(name), now: 1)
            #expect(Self.names(actions) == (wanted == "." ? "" : wanted), "\(state), \(name)")
            guard case .wake = actions.last else {
                Issue.record("\(state), \(name): it does not say when to wake it")
                continue
            }
        }
    }

    /// Nobody has that number: the shell is broken, and goes no further.
    private func expectTrap(_ state: StateName, _ event: EventName) async {
        await #expect(processExitsWith: .failure, "\(state), \(event)") { [state, event] in
            var fleet = FleetTests.fleet(in: state)
            _ = fleet.handle(FleetTests.event(event), now: 1)
        }
    }

    @Test func aNumberThatComesTwiceTraps() async {
        await #expect(processExitsWith: .failure) {
            var fleet = FleetTests.fleet(in: .busy)
            _ = fleet.handle(FleetTests.submit(1), now: 1)
        }
    }

    // MARK: What holds

    @Test func aNumberIsGivenAgainOnceItsInstanceHasGone() {
        var fleet = Self.fleet(in: .leaving)
        #expect(Self.names(fleet.handle(.found(.both, address: "b:1"), now: 1)) == "connect1")
        #expect(Self.names(fleet.handle(.ended(1), now: 2)) == "disconnect0")
        #expect(Self.names(fleet.handle(.found(.both, address: "c:1"), now: 3)) == "connect0")
        #expect(fleet.members.map(\.address) == ["c:1", "b:1"])
    }

    @Test func oneThatComesBackWhileItLeavesStaysAndServes() {
        var fleet = Self.fleet(in: .leaving)
        #expect(Self.names(fleet.handle(.found(.both, address: "a:1"), now: 1)).isEmpty)
        #expect(Self.names(fleet.handle(.ended(1), now: 2)).isEmpty && fleet[0]?.generation == nil)
        #expect(Self.names(fleet.handle(Self.answered(), now: 3)).isEmpty)
        #expect(Self.names(fleet.handle(Self.submit(2), now: 4)) == "placed2")
    }

    @Test func aRestartedProcessHoldsNoneOfItsRequests() {
        var fleet = Self.fleet(in: .busy)
        #expect(Self.names(fleet.handle(Self.answered(generation: 2), now: 1)) == "moved1+placed1")
    }

    @Test func anInstanceThatCannotWorkIsSaidToBe() {
        var fleet = Self.fleet(in: .serving)
        _ = fleet.handle(Self.answered(fault: "no experts"), now: 1)
        #expect(fleet.placement.outage.map { fleet.describe($0, lookups: []) { _ in nil } } == "no experts")
        _ = fleet.handle(Self.answered(), now: 2)
        #expect(fleet.placement.outage == nil)
        _ = fleet.handle(Self.submit(1), now: 3)
        let failure = Failure(code: .unavailable, message: "no sampler", link: .sampler)
        #expect(Self.names(fleet.handle(.broke(1, Self.loss(failure)), now: 4)) == "moved1")
        #expect(fleet.placement.outage.map { fleet.describe($0, lookups: []) { _ in nil } } == "a:1: no sampler")
    }

    @Test func anOutageIsOneSentence() {
        func sentence(_ fleet: Fleet, lookups: [String] = []) -> String? {
            fleet.placement.outage.map { fleet.describe($0, lookups: lookups) { $0 == 1 ? "b:1 is shut" : nil } }
        }
        var fleet = Self.fleet(in: .unknown)
        #expect(sentence(fleet) == "no attention instance can be called: no address is known yet")
        #expect(sentence(fleet, lookups: ["no such name"]) == "no attention instance can be called: no such name")
        _ = fleet.handle(.found(.decode, address: "a:1"), now: 0)
        _ = fleet.handle(.found(.decode, address: "b:1"), now: 0)
        #expect(
            sentence(fleet) == "no decode instance can be called: a:1: it has not answered yet; b:1 is shut")
        _ = fleet.handle(Self.failed(0, connected: true), now: 1)
        #expect(sentence(fleet) == "no decode instance can be called: a:1: lost; b:1 is shut")
        #expect(fleet[0]?.refusal?.code == .mismatch && fleet[1]?.refusal == nil)
    }

    @Test func whatNoInstanceCouldHoldIsRefusedAtOnce() {
        var fleet = Self.fleet(in: .serving)
        guard case .tell(5, .refused(let failure))? = fleet.handle(Self.submit(5, prompt: 2000), now: 0).first else {
            Issue.record("it is taken in")
            return
        }
        #expect(failure.code == .limitExceeded)
    }

    @Test func aWaitInVainHasAnEnd() {
        var fleet = Self.fleet(in: .silent)
        let first = fleet.handle(Self.submit(5), now: 0)
        guard case .wake(at: let time?)? = first.last else {
            Issue.record("nobody wakes it")
            return
        }
        #expect(time == PlacementLimits().outageMicroseconds)
        #expect(Self.names(fleet.handle(.due, now: time)) == "expired5")
    }

    /// Random lives of instances and requests: completions hear only what they can, each has one end, and an empty fleet
    /// holds nothing.
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func completionsAndFleetAgree(seed: UInt64) {
        var life = FleetLife(seed: seed)
        for _ in 0..<800 { life.go() }
        life.finish()
        #expect(life.fault == nil, "seed \(seed): \(life.fault ?? "")")
    }
}

/// A shell over a fleet and real completions, which trap when they are told what cannot be.
private struct FleetLife {
    private var generator: SeededRandom
    private var fleet: Fleet
    private var completions: [UInt64: Completion] = [:]
    private var streaming: Set<UInt64> = []
    private var opening: Set<UInt64> = []
    private var now: UInt64 = 0
    private var lastID: UInt64 = 0
    private var generations: [Int: UInt64] = [:]
    private var connected: Set<Int> = []
    private(set) var fault: String?

    init(seed: UInt64) {
        generator = SeededRandom(seed: seed)
        fleet = Fleet(limits: PlacementLimits(), policy: generator.pick(PlacementPolicy.allCases))
    }

    private mutating func report(_ event: Fleet.Event) {
        for action in fleet.handle(event, now: now) {
            switch action {
            case .connect(let instance, _):
                if !connected.insert(instance).inserted { fault = "number \(instance) is given twice" }
            case .disconnect(let instance):
                if connected.remove(instance) == nil { fault = "number \(instance) goes twice" }
            case .tell(let id, let event):
                if case .placed(let place, _) = event, !connected.contains(place.decode) { fault = "placed on nobody" }
                tell(id, event)
            case .expired(let id, _): tell(id, .refused(Failure(code: .unavailable, message: "late")))
            case .wake: break
            }
        }
    }

    private mutating func tell(_ id: UInt64, _ event: Completion.Event) {
        guard var completion = completions[id] else { return fault = "completion \(id) is told after its end" }
        let action = completion.handle(event, now: now)
        completions[id] = completion
        switch action {
        case .wait, .resume, .cancel: break
        case .open: opening.insert(id)
        case .emit: tell(id, .delivered)
        case .placeAgain(let loss):
            report(.broke(id, loss))
        case .finish, .fail:
            completions[id] = nil
            opening.remove(id)
            streaming.remove(id)
            report(.ended(id))
        }
    }

    mutating func go() {
        now += UInt64.random(in: 0...200_000, using: &generator)
        let part = generator.pick([Part.both, .both, .prefill, .decode])
        let address = "\(part):\(Int.random(in: 0...2, using: &generator))"
        switch Int.random(in: 0..<12, using: &generator) {
        case 0: report(.found(part, address: address))
        case 1: if generator.next() % 4 == 0 { report(.vanished(part, address: address)) }
        case 2, 3: answer()
        case 4: if let instance = someone(), generator.next() % 3 == 0 { report(FleetTests.failed(instance)) }
        case 5: submit()
        case 6: report(.due)
        default: work()
        }
    }

    private mutating func someone() -> Int? { connected.isEmpty ? nil : generator.pick(connected.sorted()) }

    private mutating func answer() {
        guard let instance = someone() else { return }
        generations[instance, default: 1] += generator.next() % 8 == 0 ? 1 : 0
        report(
            FleetTests.answered(
                instance, generation: generations[instance] ?? 1, fault: generator.next() % 9 == 0 ? "no experts" : nil)
        )
    }

    private mutating func submit() {
        lastID += 1
        var completion = Completion(Request(prompt: [1, 2], maximumTokens: 6))
        completion.begin(lastID, decoder: nil, deadline: now + 20_000_000)
        completions[lastID] = completion
        report(.submit(completion.request.lengths, prefix: []))
    }

    private mutating func work() {
        guard !completions.isEmpty else { return }
        let id = generator.pick(completions.keys.sorted())
        let isLost = generator.next() % 6 == 0
        switch (opening.contains(id), streaming.contains(id)) {
        case (false, false): tell(id, .free)
        case (_, _) where isLost:
            opening.remove(id)
            streaming.remove(id)
            let link = generator.pick(FailedLink.allCases)
            tell(id, .broke(Failure(code: .unavailable, message: "cut", link: link)))
        case (true, _):
            opening.remove(id)
            streaming.insert(id)
            tell(id, .opened)
        case (_, true):
            let count = completions[id]?.request.generatedCount ?? 0
            if count == 6 { return tell(id, .ended(.length)) }
            tell(id, .token(Token(id: UInt32(count), logprob: 0)))
            report(.firstToken(id, attempt: Int.random(in: 0...1, using: &generator)))
        }
    }

    /// All clients leave, then all instances.
    mutating func finish() {
        for id in completions.keys.sorted() { tell(id, .gone) }
        for load in fleet.placement.loads where load.requests != 0 || load.tokens != 0 {
            fault = "instance \(load.description.id) still holds \(load.requests) requests"
        }
        for member in fleet.members { report(.vanished(member.part, address: member.address)) }
        if !fleet.members.isEmpty || !connected.isEmpty || fleet.placement.waitingCount != 0 { fault = "some stay" }
    }
}
