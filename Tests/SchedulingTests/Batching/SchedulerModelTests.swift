import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

/// Random workloads of all roles with cancels, failed steps, late completions and two steps in flight. Whatever happens,
/// every request computes its positions in order and without gaps since it last started, samples each token once, and
/// nothing is left behind.
@Suite struct SchedulerModelTests {
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func randomWorkloadsEndCompleteAndEmpty(seed: UInt64) {
        var run = SchedulerModelRun(seed: seed)
        for _ in 0..<3000 {
            run.perform()
            if let fault = run.fault {
                Issue.record("seed \(seed): \(fault)")
                return
            }
        }
        run.finish()
        #expect(run.fault == nil, "seed \(seed): \(run.fault ?? "")")
        #expect(run.finished > 20, "seed \(seed): only \(run.finished) requests finished")
    }
}

private struct SchedulerModelRun {
    private struct Client {
        let spec: Request
        var tokens: Int
        var computed: Int?
        var reservation: Reservation?
        var transfer: Hold?
    }

    private var generator: SeededRandom
    private var scheduler: Scheduler
    private var clients: [UInt64: Client] = [:]
    private var inFlight: [[StepEntry]] = []
    private var leftTransfers: [Hold] = []
    private var nextID: UInt64 = 1
    private var now: UInt64 = 0
    private(set) var fault: String?
    private(set) var finished = 0

    init(seed: UInt64) {
        generator = SeededRandom(seed: seed)
        var limits = SchedulerLimits(rowsPerStep: 400, prefillChunk: 192, running: 6, waiting: 12)
        limits.prefillBesideDecode = 128
        limits.expectedGrowth = Double.random(in: 0...1, using: &generator)
        limits.waitMicroseconds = 100_000
        scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 9, pageCount: 26))
    }

    mutating func perform() {
        now += 10
        switch Int.random(in: 0..<20, using: &generator) {
        case 0...3: submit()
        case 4...9: plan()
        case 10...15: finishStep(fails: Int.random(in: 0..<30, using: &generator) == 0)
        case 16...17: endSomeTransfer()
        case 18: receive()
        default: if Bool.random(using: &generator) { cancel() }
        }
        takeEvents()
    }

    private mutating func submit() {
        let parts: [Part] = [.both, .both, .prefill, .decode]
        let maximum = Int.random(in: 1...200, using: &generator)
        let spec = Request(
            id: nextID, promptCount: Int.random(in: 1...700, using: &generator),
            generatedCount: Bool.random(using: &generator) ? 0 : Int.random(in: 0..<maximum, using: &generator),
            maximumTokens: maximum, part: parts[Int.random(in: 0..<4, using: &generator)],
            priority: Int.random(in: 0...1, using: &generator))
        nextID += 1
        clients[spec.id] = Client(spec: spec, tokens: spec.promptCount + spec.generatedCount)
        if case .rejected = scheduler.submit(spec, now: now) { clients[spec.id] = nil }
    }

    private mutating func plan() {
        guard inFlight.count < 2 else { return }
        let plan = scheduler.planStep(now: now)
        takeEvents()
        for entry in plan { check(entry) }
        let rows = plan.reduce(0) { $0 + $1.positions.count }
        let prefill = plan.filter(\.isPrefill).reduce(0) { $0 + $1.positions.count }
        if rows > 400 || (prefill > 128 && plan.contains { !$0.isPrefill }) {
            fault = "\(rows) rows, \(prefill) of prompts"
        }
        let all = (inFlight + [plan]).flatMap { $0 }
        let slots = all.map(\.reservation.slot)
        if Set(all.map(\.id)).count != all.count || Set(slots).count != slots.count { fault = "planned twice" }
        if !plan.isEmpty { inFlight.append(plan) }
    }

    private mutating func check(_ entry: StepEntry) {
        guard let client = clients[entry.id], let computed = client.computed else {
            fault = "planned a request that holds nothing"
            return
        }
        let end = entry.positions.upperBound
        let isOrdered = entry.positions.lowerBound == computed && end <= client.tokens
        let wanted = client.spec.part == .prefill ? client.spec.promptCount : client.tokens
        let isCut = end <= wanted && (end % 64 == 0 || end == wanted)
        let hasPages =
            entry.reservation.pages.count * 64 >= end && entry.reservation.generation == client.reservation?.generation
        if !isOrdered || !isCut || !hasPages || entry.samples != (end == client.tokens) {
            fault = "request \(entry.id) with \(client.tokens) tokens, \(computed) computed, planned \(entry)"
        }
    }

    private mutating func finishStep(fails: Bool) {
        guard !inFlight.isEmpty else { return }
        let plan = inFlight.remove(at: Int.random(in: 0..<inFlight.count, using: &generator))
        if fails {
            for id in scheduler.abandon(plan) { forget(id) }
            takeEvents()
            return
        }
        scheduler.complete(plan)
        for entry in plan {
            guard let client = clients[entry.id], client.reservation?.generation == entry.reservation.generation else {
                continue
            }
            clients[entry.id]?.computed = entry.positions.upperBound
            if entry.samples { sampled(entry.id) }
        }
        takeEvents()
    }

    private mutating func sampled(_ id: UInt64) {
        clients[id]?.tokens += 1
        guard let client = clients[id], client.spec.part != .prefill else { return }
        guard client.tokens - client.spec.promptCount >= client.spec.maximumTokens else { return }
        finished += 1
        scheduler.remove(id: id)
        forget(id)
    }

    private mutating func receive() {
        guard let id = clients.keys.sorted().first(where: { isReceiving($0) }), let hold = clients[id]?.transfer
        else { return }
        guard scheduler.received(id: id, transfer: hold) else {
            fault = "a live transfer was not taken"
            return
        }
        guard let spec = clients[id]?.spec else { return }
        clients[id]?.transfer = nil
        clients[id]?.computed = spec.promptCount
        if clients[id]?.tokens == spec.promptCount { sampled(id) }
    }

    private func isReceiving(_ id: UInt64) -> Bool {
        clients[id].map { $0.spec.part == .decode && $0.transfer != nil } ?? false
    }

    private mutating func endSomeTransfer() {
        guard !leftTransfers.isEmpty else { return }
        if !scheduler.endTransfer(leftTransfers.removeFirst()) { fault = "an open transfer did not end" }
    }

    private mutating func cancel() {
        guard let id = clients.keys.sorted().randomElement(using: &generator) else { return }
        scheduler.remove(id: id)
        forget(id)
    }

    private mutating func forget(_ id: UInt64) {
        if let transfer = clients.removeValue(forKey: id)?.transfer { leftTransfers.append(transfer) }
    }

    private mutating func takeEvents() {
        for event in scheduler.takeEvents() {
            switch event {
            case .admitted(let id, let reservation, let transfer):
                clients[id]?.reservation = reservation
                clients[id]?.transfer = transfer
                if clients[id]?.spec.part != .decode { clients[id]?.computed = 0 }
            case .expired(let id): forget(id)
            case .preempted(let id):
                clients[id]?.reservation = nil
                clients[id]?.computed = nil
            case .promptComplete(let id):
                finished += 1
                scheduler.remove(id: id)
                forget(id)
            }
        }
    }

    /// Lets everything run out, then nothing may be held.
    mutating func finish() {
        for _ in 0..<20_000 where scheduler.hasWork && fault == nil {
            plan()
            finishStep(fails: false)
            receive()
            endSomeTransfer()
        }
        while !inFlight.isEmpty { finishStep(fails: false) }
        while !leftTransfers.isEmpty { endSomeTransfer() }
        if scheduler.hasWork { fault = fault ?? "work left over: \(scheduler.load)" }
        if !clients.isEmpty { fault = fault ?? "\(clients.count) clients never answered" }
        if scheduler.pools.slotsInUse != 0 || scheduler.pools.pagesInUse != 0 {
            fault = fault ?? "leaked: \(scheduler.pools.slots), \(scheduler.pools.pages)"
        }
    }
}
