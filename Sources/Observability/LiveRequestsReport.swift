import JSON

/// What a service answers when it is asked for the requests it is at work on.
public struct LiveRequestsReport: Sendable {
    private let service: String
    private let instance: String
    private let requests: LiveRequests

    /// A report on `requests`.
    public init(service: String, instance: String, _ requests: LiveRequests) {
        self.service = service
        self.instance = instance
        self.requests = requests
    }

    /// JSON with `limit` requests at most, those first that have been longest in their phase.
    public func json(limit: Int, now: Int64 = Stopwatch.now) -> [UInt8] {
        let (listed, count) = requests.oldest(limit: limit)
        var out = "{\"service\":\(JSONText.quoted(service)),\"instance\":\(JSONText.quoted(instance)),"
        out += "\"count\":\(count),\"limit\":\(limit),\"requests\":["
        out += listed.map { request in
            let past = request.past.map {
                "{\"phase\":\(JSONText.quoted($0.name.rawValue)),\"seconds\":\(Self.seconds($0.nanoseconds))}"
            }
            return "\n{\"number\":\(request.number),\"request\":\(JSONText.quoted(request.name)),"
                + "\"trace\":\(JSONText.quoted(request.trace.isNone ? "" : request.trace.id)),"
                + "\"phase\":\(JSONText.quoted(request.phase.rawValue)),"
                + "\"phase_seconds\":\(Self.seconds(now - request.phaseStarted)),"
                + "\"age_seconds\":\(Self.seconds(now - request.started)),"
                + "\"idle_seconds\":\(Self.seconds(now - request.lastProgress)),"
                + "\"prompt_tokens\":\(request.promptTokens),\"tokens\":\(request.tokens),"
                + "\"instance\":\(JSONText.quoted(request.place)),\"past\":[\(past.joined(separator: ","))]}"
        }.joined(separator: ",")
        return Array((out + "]}\n").utf8)
    }

    /// Seconds to the microsecond.
    private static func seconds(_ nanoseconds: Int64) -> String {
        let microseconds = max(0, nanoseconds) / 1000
        let fraction = String(microseconds % 1_000_000)
        return "\(microseconds / 1_000_000)." + String(repeating: "0", count: 6 - fraction.utf8.count) + fraction
    }
}
