/// Rows of a data set that cannot be used, by reason.
struct OddRows: Sendable {
    /// Reasons that are named one by one, at most.
    private static let reasonLimit = 6

    private var rows: [String: (first: Int, count: Int)] = [:]
    private(set) var count = 0

    /// Row `number` (from 1) is left out because it `reason`, such as "has no answer".
    mutating func note(_ number: Int, _ reason: String) {
        count += 1
        let known = rows[reason]
        // A hostile file could give every row a reason of its own.
        guard known != nil || rows.count < Self.reasonLimit else {
            let rest = rows["has another fault"]
            rows["has another fault"] = (rest?.first ?? number, (rest?.count ?? 0) + 1)
            return
        }
        rows[reason] = (min(known?.first ?? number, number), (known?.count ?? 0) + 1)
    }

    /// What was left out and why; nil when nothing was.
    func sentence(of total: Int, _ kind: String) -> String? {
        guard count > 0 else { return nil }
        let reasons = rows.sorted { ($1.value.count, $0.value.first) < ($0.value.count, $1.value.first) }
            .map { "\($0.value.count) \($0.key) (\(kind) \($0.value.first))" }
        return "left out \(count) of \(total) \(kind)s: " + reasons.joined(separator: ", ")
    }
}
