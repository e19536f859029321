import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

/// The scheduler with its prefix cache over memory that remembers which tokens made it. A step checks that each request
/// finds the state of exactly its own tokens, and that it writes where nobody else reads.
@Suite struct KeptPrefixTests {
    @Test(arguments: 1...100 as ClosedRange<UInt64>)
    func whateverIsKeptOrEvictedARequestFindsTheStateOfItsOwnTokens(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var run = KeptRun(slots: 2 + Int(seed % 4), pages: 24 + Int(seed % 3) * 20, snapshots: Int(seed % 3) * 2)
        for _ in 0..<1500 where run.fault == nil { run.perform(&random) }
        run.drain()
        #expect(run.fault == nil, "seed \(seed): \(run.fault ?? "")")
        #expect(run.finished > 10, "seed \(seed): \(run.finished) finished")
    }

    /// The sum over many workloads, so that the test above cannot pass because nothing is ever kept.
    @Test func randomConversationsHitWhatIsKept() {
        var hits = 0
        var evictions = 0
        for seed in 1...20 as ClosedRange<UInt64> {
            var random = SeededRandom(seed: seed)
            var run = KeptRun(slots: 4, pages: 64, snapshots: 6)
            for _ in 0..<1500 where run.fault == nil { run.perform(&random) }
            hits += run.ranks.load.prefixHitTokens
            evictions += run.ranks.load.prefixEvictions
        }
        #expect(hits > 20_000 && evictions > 100, "\(hits) tokens hit, \(evictions) snapshots evicted")
    }

    @Test func aConversationGoesOnFromItsAnswer() {
        var run = KeptRun(slots: 2, pages: 40, snapshots: 4)
        let first = run.complete(prompt: tokens(300), answer: 50)
        let next = run.complete(prompt: first.tokens + tokens(40, from: 7), answer: 5)
        #expect(next.cachedCount == 349, "all but the last token, which was not computed")
    }

    @Test func aChangedLastTurnRecomputesThatTurnOnly() {
        var run = KeptRun(slots: 2, pages: 60, snapshots: 6)
        let first = run.complete(prompt: tokens(300), answer: 50)
        _ = run.complete(prompt: first.tokens + tokens(100, from: 7), answer: 50)
        let changed = run.complete(prompt: first.tokens + tokens(100, from: 9), answer: 5)
        #expect(changed.cachedCount == 349)
    }

    @Test func anotherAnswerToAPromptGoesOnFromThePrompt() {
        var run = KeptRun(slots: 2, pages: 60, snapshots: 6)
        _ = run.complete(prompt: tokens(300), answer: 50)
        let other = run.complete(prompt: tokens(300) + tokens(90, from: 5), answer: 5)
        #expect(other.cachedCount == 300)
    }

    @Test func aBeginningThatManyShareIsKeptWhereTheyPart() {
        var run = KeptRun(slots: 2, pages: 80, snapshots: 8)
        let shared = tokens(200)
        let counts = (0..<4).map { run.complete(prompt: shared + tokens(80, from: 20 + $0), answer: 3).cachedCount }
        #expect(counts == [0, 0, 192, 192], "the second sees where it parts, the others go on from there")
    }

    @Test func aLongPromptCanBeForkedOnItsWay() {
        var run = KeptRun(slots: 2, pages: 600, snapshots: 8)
        _ = run.complete(prompt: tokens(20_000), answer: 2)
        let fork = run.complete(prompt: tokens(8192) + tokens(70, from: 3), answer: 2)
        #expect(fork.cachedCount == 8192)
    }

    @Test func onlyRequestsWithTheSameSaltShare() {
        var run = KeptRun(slots: 2, pages: 40, snapshots: 4)
        let first = run.complete(prompt: tokens(300), answer: 50, salt: "one")
        #expect(first.cachedCount == 0)
        let next = run.answered + tokens(40, from: 7)
        let stranger = run.complete(prompt: next, answer: 5, salt: "two")
        #expect(stranger.cachedCount == 0)
        let friend = run.complete(prompt: next + [1], answer: 5, salt: "one")
        #expect(friend.cachedCount == 349)
    }

    @Test func pagesWithoutAStateAreNoHit() {
        var run = KeptRun(slots: 2, pages: 40, snapshots: 0)
        _ = run.complete(prompt: tokens(300), answer: 2)
        let shorter = run.complete(prompt: tokens(150), answer: 2)
        #expect(shorter.cachedCount == 0, "its pages are there, its state is not")
    }

    @Test func whatAFailedStepLeftIsNotKept() {
        var run = KeptRun(slots: 2, pages: 40, snapshots: 4)
        run.submit(prompt: tokens(300), answer: 50)
        for _ in 0..<3 { run.step() }
        run.step(fails: true)
        let again = run.untilDone()
        #expect(again.cachedCount == 0, "what is computed again was no hit")
        #expect(run.fault == nil)
    }

    @Test func whatACancelledRequestComputedIsKept() {
        var run = KeptRun(slots: 2, pages: 40, snapshots: 4)
        let id = run.submit(prompt: tokens(640), answer: 50)
        for _ in 0..<2 { run.step() }
        run.cancel(id)
        let again = run.complete(prompt: tokens(640), answer: 2)
        #expect(again.cachedCount == 384)
    }

    @Test func requestsAdmittedTogetherEachGetAStateOfTheirOwn() {
        var run = KeptRun(slots: 4, pages: 80, snapshots: 4)
        _ = run.complete(prompt: tokens(300), answer: 50)
        let base = run.answered
        for tail in 0..<4 { run.submit(prompt: base + tokens(70, from: 30 + tail), answer: 9) }
        let counts = (0..<4).map { _ in run.untilDone().cachedCount }
        #expect(counts == [349, 349, 349, 349])
        #expect(run.fault == nil)
    }

    @Test func aHitKeepsItsPagesWhenWhoSharedThemIsCancelledAndTheSnapshotEvicted() {
        var run = KeptRun(slots: 3, pages: 30, snapshots: 1)
        _ = run.complete(prompt: tokens(300), answer: 50)
        let base = run.answered
        let cancelled = run.submit(prompt: base + tokens(70, from: 30), answer: 9)
        run.submit(prompt: base + tokens(70, from: 31), answer: 9)
        run.cancel(cancelled)
        run.submit(prompt: tokens(1200, from: 77), answer: 30)
        let counts = [run.untilDone().cachedCount, run.untilDone().cachedCount]
        #expect(counts == [349, 0] && run.fault == nil && run.ranks.load.prefixEvictions > 0, "\(run.fault ?? "")")
    }

    @Test func aPromptThatIsHandedOutIsKeptAndGoneOnFrom() {
        var run = KeptRun(slots: 2, pages: 60, snapshots: 4)
        let first = run.handOut(prompt: tokens(300))
        #expect(first.cachedCount == 0)
        let longer = run.handOut(prompt: tokens(300) + tokens(90, from: 4))
        #expect(longer.cachedCount == 300)
    }

    @Test func whatIsFlushedServesNobodyElseAndStaysWithWhoWentOnFromIt() {
        var run = KeptRun(slots: 3, pages: 60, snapshots: 4)
        _ = run.complete(prompt: tokens(300), answer: 50)
        let base = run.answered
        run.submit(prompt: base + tokens(70, from: 30), answer: 9)
        run.flush()
        #expect(run.ranks.load.prefixSnapshots == 0)
        let before = run.untilDone()
        run.flush()
        let after = run.complete(prompt: base + tokens(70, from: 31), answer: 9)
        #expect(before.cachedCount == 349 && after.cachedCount == 0 && run.fault == nil)
    }

    @Test func whatIsKeptMakesRoomForRequestsThatWait() {
        var run = KeptRun(slots: 2, pages: 12, snapshots: 2)
        _ = run.complete(prompt: tokens(300), answer: 50)
        #expect(run.ranks.load.slots[.cached] > 0)
        let large = run.complete(prompt: tokens(700, from: 3), answer: 20)
        #expect(large.generatedCount == 20)
        #expect(run.ranks.load.prefixEvictions > 0 && run.fault == nil)
    }

    private func tokens(_ count: Int, from first: Int = 0) -> [UInt32] {
        (0..<count).map { UInt32(($0 * 31 + first * 1009) % 50_021) }
    }
}

/// A request that is over.
private struct Over {
    let tokens: [UInt32]
    let cachedCount: Int
    let generatedCount: Int
}

private struct KeptRun {
    private(set) var ranks: Ranks
    private(set) var fault: String?
    private(set) var finished = 0
    /// Tokens of the request that was over last.
    private(set) var answered: [UInt32] = []
    /// Which tokens made a slot's state, and a page's latents; nil is what nobody may read.
    private var slots: [Int: [UInt32]] = [:]
    private var pages: [Int: [UInt32]] = [:]
    private var steps: [Step] = []
    private var over: [Over] = []
    private var transfers: [UInt64: Hold] = [:]
    private var histories: [[UInt32]] = [[]]
    private var nextID: UInt64 = 1
    private var now: UInt64 = 0

    init(slots: Int, pages: Int, snapshots: Int) {
        var limits = SchedulerLimits(rowsPerStep: 260, prefillChunk: 192, running: slots, waiting: 100)
        limits.keepsPrefixes = true
        limits.snapshots = snapshots
        limits.waitMicroseconds = .max
        ranks = Ranks(limits: limits, slotCount: slots, pageCount: pages)
    }

    // MARK: One thing after the other

    @discardableResult
    mutating func submit(prompt: [UInt32], answer: Int, salt: String = "", part: Part = .both) -> UInt64 {
        var request = Request(id: nextID, prompt: prompt, maximumTokens: answer)
        request.part = part
        request.cacheSalt = salt
        nextID += 1
        _ = ranks.submit(request, now: now)
        takeEvents()
        return request.id
    }

    mutating func complete(prompt: [UInt32], answer: Int, salt: String = "") -> Over {
        submit(prompt: prompt, answer: answer, salt: salt)
        return untilDone()
    }

    mutating func handOut(prompt: [UInt32]) -> Over {
        submit(prompt: prompt, answer: 1, part: .prefill)
        return untilDone()
    }

    /// Steps until one more request is over.
    mutating func untilDone() -> Over {
        for _ in 0..<10_000 where over.isEmpty && fault == nil { step() }
        guard !over.isEmpty else { return Over(tokens: [], cachedCount: -1, generatedCount: -1) }
        let one = over.removeFirst()
        answered = one.tokens
        return one
    }

    mutating func step(fails: Bool = false) {
        plan()
        if !steps.isEmpty { finish(fails: fails) }
    }

    mutating func cancel(_ id: UInt64) {
        transfers.removeValue(forKey: id).map { _ = ranks.endTransfer($0) }
        ranks.remove(id: id)
    }

    mutating func flush() { ranks.flushPrefixes() }

    // MARK: At random

    mutating func perform(_ random: inout SeededRandom) {
        now += 10
        switch Int.random(in: 0..<21, using: &random) {
        case 0...2 where ranks.waitingCount < 6:
            // A conversation goes on, is forked somewhere, or begins.
            let base = histories.randomElement(using: &random) ?? []
            let kept = base.prefix(
                Bool.random(using: &random) ? base.count : Int.random(in: 0...base.count, using: &random))
            let more = (0..<Int.random(in: 1...150, using: &random)).map { _ in
                UInt32.random(in: 0..<50, using: &random)
            }
            submit(
                prompt: Array(kept) + more, answer: Int.random(in: 1...40, using: &random),
                salt: Int.random(in: 0..<5, using: &random) == 0 ? "s" : "",
                part: Int.random(in: 0..<4, using: &random) == 0 ? .prefill : .both)
        case 0...10: plan()
        case 11...17: if !steps.isEmpty { finish(fails: Int.random(in: 0..<25, using: &random) == 0) }
        case 18: if Int.random(in: 0..<4, using: &random) == 0 { cancel(UInt64.random(in: 1...nextID, using: &random)) }
        case 19: if Int.random(in: 0..<20, using: &random) == 0 { flush() }
        default: over.removeAll()
        }
    }

    /// All end; then nothing is in use.
    mutating func drain() {
        for _ in 0..<20_000 where fault == nil && (ranks.hasWork || !steps.isEmpty) {
            now += 10
            plan()
            if !steps.isEmpty { finish(fails: false) }
        }
        guard fault == nil else { return }
        let load = ranks.load
        if ranks.hasWork || load.slotsInUse + load.pagesInUse > 0 { fault = "left behind: \(load)" }
        if load.slots[.cached] != load.prefixSnapshots { fault = "\(load.prefixSnapshots) snapshots, \(load.slots)" }
    }

    // MARK: What a step does

    private mutating func plan() {
        guard steps.isEmpty else { return }
        let step = ranks.planStep(now: now)
        takeEvents()
        guard !step.isEmpty else { return }
        for copy in step.copies {
            slots[copy.slots.to] = slots[copy.slots.from]
            if let page = copy.pages { pages[page.to] = pages[page.from] }
        }
        steps.append(step)
    }

    private mutating func finish(fails: Bool) {
        let step = steps.removeFirst()
        for entry in step.entries { compute(entry, fails: fails) }
        guard !fails else {
            for id in ranks.abandon(step) { transfers.removeValue(forKey: id).map { _ = ranks.endTransfer($0) } }
            takeEvents()
            return
        }
        ranks.complete(step)
        for entry in step.entries where entry.samples {
            guard let request = ranks.request(entry.id), request.part != .prefill else { continue }
            _ = ranks.append(UInt32((request.knownCount * 13 + Int(entry.id)) % 50), to: entry.id)
            if let request = ranks.request(entry.id), request.end != nil { end(request) }
        }
        takeEvents()
    }

    private mutating func compute(_ entry: StepEntry, fails: Bool) {
        guard let request = ranks.request(entry.id) else { return }
        let (slot, known) = (entry.reservation.slot, entry.positions.lowerBound)
        if known == 0 { slots[slot] = [] }
        if slots[slot] != Array(request.tokens[..<known]) {
            fault = "request \(entry.id) at \(known) finds the state of \(slots[slot]?.count ?? -1) other tokens"
        }
        for (index, page) in entry.reservation.pages.enumerated() where index * 64 < known {
            let expected = request.tokens[(index * 64)..<min(known, index * 64 + 64)]
            if pages[page]?.starts(with: expected) != true { fault = "request \(entry.id) reads a page of others" }
        }
        slots[slot] = fails ? nil : Array(request.tokens[..<entry.positions.upperBound])
        for index in (known / 64)...((entry.positions.upperBound - 1) / 64) {
            let page = entry.reservation.pages[index]
            let written = request.tokens[(index * 64)..<min(entry.positions.upperBound, index * 64 + 64)]
            pages[page] = Array(written)
        }
    }

    private mutating func end(_ request: Request) {
        finished += 1
        over.append(
            Over(
                tokens: request.tokens, cachedCount: request.cachedCount, generatedCount: request.generatedCount))
        histories.append(request.tokens)
        if histories.count > 6 { histories.removeFirst() }
        ranks.remove(id: request.id)
    }

    private mutating func takeEvents() {
        for event in ranks.takeEvents() {
            switch event {
            case .admitted(let id, _, let transfer): transfers[id] = transfer
            case .promptComplete(let id):
                if let request = ranks.request(id) { end(request) }
                transfers.removeValue(forKey: id).map { _ = ranks.endTransfer($0) }
            case .expired, .preempted: break
            }
        }
    }
}
