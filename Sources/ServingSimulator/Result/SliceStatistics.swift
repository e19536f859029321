import DeploymentModel
import Scheduling
import Serving

/// One step: what it was made of and when.
public struct StepSpan: Sendable, Equatable {
    /// What a step is made of.
    public enum Kind: String, Sendable, CaseIterable {
        /// Prompt rows alone.
        case prefill
        /// Decode rows alone.
        case decode
        /// Both.
        case mixed
    }

    /// What it was made of.
    public private(set) var kind = Kind.decode
    /// Rows of prompts, of all ranks.
    public private(set) var prefillRows = 0
    /// Rows of decoding requests, of all ranks.
    public private(set) var decodeRows = 0
    /// When it began and ended, nanoseconds.
    public private(set) var start: UInt64 = 0
    /// When it ended.
    public private(set) var end: UInt64 = 0

    init() {}

    init(_ step: Step, start: UInt64, end: UInt64) {
        for plan in step.ranks {
            for entry in plan {
                if entry.isPrefill { prefillRows += entry.positions.count } else { decodeRows += entry.positions.count }
            }
        }
        kind = prefillRows == 0 ? .decode : decodeRows == 0 ? .prefill : .mixed
        (self.start, self.end) = (start, end)
    }
}

/// What a slice did in a run.
public struct SliceStatistics: Sendable {
    /// Steps of one kind taken together.
    public struct Steps: Sendable, Equatable {
        /// How many.
        public internal(set) var count = 0
        /// Rows of prompts.
        public internal(set) var prefillRows = 0
        /// Rows of decoding requests.
        public internal(set) var decodeRows = 0
        /// Their time, by component.
        public internal(set) var cost = StepCost()
    }

    /// The slice's name.
    public let name: String
    /// Which part of a request it computes.
    public let part: Part
    /// Ranks that share its steps.
    public let ranks: Int
    /// Recurrent slots of all ranks.
    public let slots: Int
    /// KV pages of all ranks.
    public let pages: Int
    /// Steps by kind.
    public internal(set) var steps: [StepSpan.Kind: Steps] = [:]
    /// Most slots in use at once.
    public internal(set) var peakSlots = 0
    /// Most pages in use at once.
    public internal(set) var peakPages = 0
    /// Requests that gave up their memory and were computed again.
    public internal(set) var preemptions = 0
    /// Nanoseconds in which it computed.
    public internal(set) var busyNanoseconds: UInt64 = 0
    /// Nanoseconds of the run.
    public internal(set) var nanoseconds: UInt64 = 0
    /// The links its states left by, with what passed them, by rank.
    public internal(set) var links: [TransferLink] = []
    /// Slots and pages in use when the run ended.
    public internal(set) var usedAtEnd = 0
    private var slotTime = 0.0
    private var pageTime = 0.0

    init(_ slice: ServingSlice) {
        name = slice.name
        part = slice.part
        ranks = slice.group.rankCount
        slots = slice.group.slotCount
        pages = slice.group.pageCount
    }

    /// Mean of the slots in use while it computed.
    public var meanSlots: Double { busyNanoseconds == 0 ? 0 : slotTime / Double(busyNanoseconds) }
    /// Mean of the pages in use while it computed.
    public var meanPages: Double { busyNanoseconds == 0 ? 0 : pageTime / Double(busyNanoseconds) }

    mutating func add(_ span: StepSpan, _ cost: StepCost, _ group: Ranks) {
        var (slots, pages) = (0, 0)
        for scheduler in group.schedulers {
            slots += scheduler.pools.slotsInUse
            pages += scheduler.pools.pagesInUse
        }
        let duration = span.end - span.start
        busyNanoseconds += duration
        slotTime += Double(slots) * Double(duration)
        pageTime += Double(pages) * Double(duration)
        peakSlots = max(peakSlots, slots)
        peakPages = max(peakPages, pages)
        steps[span.kind, default: Steps()].add(span, cost)
    }
}

extension SliceStatistics.Steps {
    mutating func add(_ span: StepSpan, _ cost: StepCost) {
        count += 1
        prefillRows += span.prefillRows
        decodeRows += span.decodeRows
        self.cost += cost
    }
}
