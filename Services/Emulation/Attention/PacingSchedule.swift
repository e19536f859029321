/// When the steps of an emulated slice begin and end in real time: a value that is told what the clock says.
///
/// The schedule is absolute. A step that follows another begins where that one should have ended, not where somebody woke
/// up, so that late wake-ups do not add up. When a step's end is missed by more than a step, what is lost is lost: the
/// schedule goes on from there, and how much was lost is kept.
public struct PacingSchedule: Sendable, Equatable {
    /// A step that ends later than this part of its time counts as late.
    public static let tolerance = 0.02
    /// Behind by less than this nothing is given up, however short steps are.
    private static let patienceNanoseconds: UInt64 = 50_000_000

    /// What pacing came to.
    public struct Record: Sendable, Equatable {
        /// Steps that were paced.
        public internal(set) var steps: Int64 = 0
        /// Steps that ended later than the tolerance allows.
        public internal(set) var lateSteps: Int64 = 0
        /// Nanoseconds that all steps should have taken.
        public internal(set) var scheduledNanoseconds: Int64 = 0
        /// Nanoseconds by which ends were missed, added up.
        public internal(set) var errorNanoseconds: Int64 = 0
        /// The largest of them.
        public internal(set) var worstNanoseconds: Int64 = 0
        /// Nanoseconds by which the schedule was put off because it could not be kept.
        public internal(set) var lostNanoseconds: Int64 = 0

        /// Nothing yet.
        public init() {}

        /// Mean part of a step's time by which its end was missed.
        public var meanError: Double {
            scheduledNanoseconds == 0 ? 0 : Double(errorNanoseconds) / Double(scheduledNanoseconds)
        }

        /// How fast emulated time ran, 1 being as it should.
        public var realTimeShare: Double {
            let all = scheduledNanoseconds + lostNanoseconds
            return all == 0 ? 1 : Double(scheduledNanoseconds) / Double(all)
        }

        /// What happened since `earlier`; the largest miss is that of all.
        public func since(_ earlier: Record) -> Record {
            var record = self
            record.steps -= earlier.steps
            record.lateSteps -= earlier.lateSteps
            record.scheduledNanoseconds -= earlier.scheduledNanoseconds
            record.errorNanoseconds -= earlier.errorNanoseconds
            record.lostNanoseconds -= earlier.lostNanoseconds
            return record
        }
    }

    /// Emulated time per real time.
    public let speedup: Double
    /// What pacing came to so far.
    public private(set) var record = Record()
    private var end: UInt64 = 0
    private var duration: UInt64 = 0

    /// A schedule that begins with its first step.
    public init(speedup: Double = 1) { self.speedup = max(1e-6, speedup) }

    /// A step of `picoseconds` begins; `continues` when it follows the last one without a pause. Returns when it should
    /// end. Times are nanoseconds of any clock.
    public mutating func begin(picoseconds: Int64, now: UInt64, continues: Bool) -> UInt64 {
        let start = continues && end > 0 ? end : now
        duration = UInt64(Double(max(0, picoseconds)) / 1000 / speedup)
        end = start + duration
        return end
    }

    /// The step ended.
    public mutating func finished(now: UInt64) {
        let miss = now > end ? now - end : 0
        record.steps += 1
        record.scheduledNanoseconds += Int64(duration)
        record.errorNanoseconds += Int64(miss)
        record.worstNanoseconds = max(record.worstNanoseconds, Int64(miss))
        if Double(miss) > Self.tolerance * Double(duration) { record.lateSteps += 1 }
        guard miss > max(duration, Self.patienceNanoseconds) else { return }
        record.lostNanoseconds += Int64(miss)
        end = now
    }
}
