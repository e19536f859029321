import LoadTesting
import Scheduling
import Serving
import StatePools

/// A load on slices under a virtual clock: the gateway's placement, the slices' schedulers and pools are the ones that
/// serve, only steps and transfers are times instead of work. What comes out depends on the scenario alone.
///
/// Time goes from event to event: a step ends, a request reaches the gateway, a state arrives. A slice plans its next
/// step the moment the last one ends, as a live one does: what arrives because of that end comes too late for it.
public struct ServingSimulation {
    enum Event {
        /// A request reaches the gateway.
        case arrival(Int)
        /// All of a prompt's state is on the decode slice.
        case handedOver(Int)
    }

    var running: [RunningSlice]
    var placement: PlacementController
    var controller: LoadController
    var requests: [Int: SimulatedRequest] = [:]
    var records: [RequestRecord] = []
    var events = EventHeap<Event>()
    var timeline: ServingTimeline
    /// Nanoseconds.
    var now: UInt64 = 0
    var operations = OperationCounts()
    var progress = ServingProgress()
    private let load: ServingLoad
    private var clientFreeAt: UInt64 = 0
    private var sendWake: UInt64?

    /// A run that has not begun.
    public init(_ scenario: ServingScenario) {
        load = scenario.load
        running = scenario.slices.map(RunningSlice.init)
        placement = PlacementController(limits: scenario.placement, policy: scenario.policy)
        controller = LoadController(due: scenario.load.due, limit: scenario.load.limit)
        timeline = ServingTimeline(limit: scenario.timelineLimit, slices: scenario.slices.map(\.name))
        progress.total = scenario.load.due.count
        records.reserveCapacity(scenario.load.due.count)
        for (rank, slice) in scenario.slices.enumerated() {
            _ = placement.join(
                InstanceDescription(
                    id: rank, name: slice.name, part: slice.part,
                    capacity: Capacity(requests: slice.group.slotCount, tokens: slice.group.pageCount * Block.tokens),
                    generation: 1), now: 0)
        }
    }

    /// Runs to the end of the load. `onProgress` hears of the run every few thousand steps, and ends it by returning
    /// false.
    public mutating func run(onProgress: (ServingProgress) -> Bool = { _ in true }) -> ServingResult {
        sendDue()
        startIdleSlices()
        while let next = nextTime {
            now = next
            operations.events += 1
            for rank in running.indices where running[rank].endsAt == now { endStep(rank) }
            while let event = events.take(until: now) { perform(event) }
            sendDue()
            pollPlacement()
            startIdleSlices()
            guard operations.events % 2048 == 0 else { continue }
            guard onProgress(currentProgress) else { break }
        }
        for index in requests.keys.sorted() { end(index, .cutOff) }
        return ServingResult(
            records: records.sorted { $0.index < $1.index }, slices: running.map { $0.summary(until: now) },
            timeline: timeline, operations: operations, nanoseconds: now)
    }

    private var currentProgress: ServingProgress {
        var progress = progress
        progress.nanoseconds = now
        progress.inFlight = controller.inFlight
        return progress
    }

    private var nextTime: UInt64? {
        var next = events.nextTime ?? .max
        for slice in running { next = min(next, slice.nextTime ?? .max) }
        if let wake = sendWake { next = min(next, max(wake * 1000, now + 1)) }
        if placement.waitingCount > 0, let wake = placement.nextWake { next = min(next, max(wake * 1000, now + 1)) }
        for slice in running where slice.endsAt == nil && slice.slice.group.waitingCount > 0 {
            if let expiry = slice.slice.group.nextExpiry, expiry < .max / 1000 {
                next = min(next, max(expiry * 1000, now + 1))
            }
        }
        return next == .max ? nil : next
    }

    // MARK: Client

    /// Microseconds, the unit of schedulers and records.
    var microseconds: UInt64 { now / 1000 }

    private mutating func sendDue() {
        let step = controller.advance(to: microseconds)
        sendWake = step.wakeAt
        for index in step.send {
            let sent = max(now, clientFreeAt)
            clientFreeAt = sent + load.sendNanoseconds
            let (input, output) = load.workload.lengths(at: index)
            requests[index] = SimulatedRequest(
                inputTokens: input, outputTokens: output,
                cancelAfter: load.cancellation.tokens(index: index, outputTokens: output),
                record: RequestRecord(
                    index: index, due: controller.due[index], sent: sent / 1000, inputTokens: input))
            events.add(.arrival(index), at: clientFreeAt)
        }
        while let event = events.take(until: now) { perform(event) }
    }

    /// A request is over for client and gateway.
    mutating func end(_ index: Int, _ outcome: Outcome) {
        guard var request = requests.removeValue(forKey: index) else { return }
        request.record.ended = microseconds
        request.record.outcome = outcome
        let id = UInt64(index)
        if let place = request.placement {
            running[place.decode].slice.group.remove(id: id)
            if let hold = request.incoming { running[place.decode].slice.group.endTransfer(hold) }
            running[place.decode].wake(at: now)
            if place.prefill != place.decode { releasePrompt(id, place.prefill, request.outgoing) }
        }
        placement.ended(id: id)
        controller.finished()
        progress.ended += 1
        timeline.addRequest(request.record, tokens: request.generated)
        records.append(request.record)
    }

    mutating func releasePrompt(_ id: UInt64, _ rank: Int, _ hold: Hold?) {
        running[rank].slice.group.remove(id: id)
        if let hold { running[rank].slice.group.endTransfer(hold) }
        running[rank].wake(at: now)
    }
}
