import DeploymentModel
import Foundation
import LoadTesting
import ServingSimulator

/// A simulated run for people and for scripts: what a client saw, then what the slices did.
struct ServeReport {
    private let plan: ServePlan
    private let result: ServingResult
    private let summary: LoadSummary

    init(_ plan: ServePlan, _ result: ServingResult) {
        self.plan = plan
        self.result = result
        summary = LoadSummary(result.records, settings: plan.settings)
    }

    /// The block of `ironling load`, then the slices.
    func text() -> String { ResultBlock.text(summary) + "\n\n" + slicesText }

    /// The HTML page of `ironling load`, with the components' plot and the slices.
    func html() -> String {
        HTMLReport.text(summary, result.records, figures: figures, notes: slicesText)
    }

    /// The plots as one SVG file.
    func picture() -> String { HTMLReport.picture(summary, result.records, figures: figures) }

    private var figures: [String] { result.slices.map { ComponentPlot($0).svg } }

    // MARK: Text

    private var slicesText: String {
        let deployment = plan.serving.deployment
        var lines = ["\(deployment.shape.name), \(deployment.layout)"]
        for device in deployment.memory.devices { lines.append("HBM of a device for \(device.name): \(device.sum)") }
        lines += plan.notes.map { "note: \($0)" }
        for slice in result.slices { lines += [""] + text(of: slice) }
        return lines.joined(separator: "\n")
    }

    private func text(of slice: SliceStatistics) -> [String] {
        let busy = result.nanoseconds == 0 ? 0 : Double(slice.busyNanoseconds) / Double(result.nanoseconds)
        var lines = [
            "slice \(slice.name): \(slice.ranks) ranks in lockstep, computing \(percent(busy)) of "
                + "\(number(Double(result.nanoseconds) / 1e9, 1)) s",
            "  slots  \(slice.slots): \(number(slice.meanSlots, 1)) in use on average, \(slice.peakSlots) at most "
                + "(\(percent(ratio(slice.peakSlots, slice.slots))))",
            "  tokens \(slice.pages * 64): \(number(slice.meanPages * 64, 0)) in use on average, "
                + "\(slice.peakPages * 64) at most (\(percent(ratio(slice.peakPages, slice.pages))))",
        ]
        if slice.preemptions > 0 { lines.append("  preemptions \(slice.preemptions)") }
        if !slice.links.isEmpty {
            let bytes = slice.links.reduce(0) { $0 + $1.sentBytes }
            let time = slice.links.reduce(0) { $0 + Double($1.busyNanoseconds) }
            let share = time / Double(max(1, result.nanoseconds)) / Double(slice.links.count)
            lines.append("  states sent \(number(Double(bytes) / 1e9, 2)) GB, links busy \(percent(share))")
        }
        return lines + table(of: slice)
    }

    private func table(of slice: SliceStatistics) -> [String] {
        let kinds = StepSpan.Kind.allCases.compactMap { kind in slice.steps[kind].map { (kind, $0) } }
        guard !kinds.isEmpty else { return [] }
        func row(_ name: String, _ cells: [String]) -> String {
            "  " + name.padding(toLength: 22, withPad: " ", startingAt: 0)
                + cells.map { String(repeating: " ", count: max(1, 14 - $0.count)) + $0 }.joined()
        }
        var lines = [
            row("steps", kinds.map { $0.0.rawValue }), row("  number", kinds.map { "\($0.1.count)" }),
            row(
                "  rows of a step",
                kinds.map { number(Double($0.1.prefillRows + $0.1.decodeRows) / Double($0.1.count), 1) }),
        ]
        for component in Component.allCases where kinds.contains(where: { $0.1.cost[component] != 0 }) {
            lines.append(
                row(
                    "  " + component.rawValue,
                    kinds.map { "\(number(milliseconds($0.1.cost[component]) / Double($0.1.count), 3)) ms" }))
        }
        lines.append(
            row(
                "  a step, on average",
                kinds.map { "\(number(milliseconds($0.1.cost.total) / Double($0.1.count), 3)) ms" }))
        return lines
    }

    // MARK: JSON

    /// One object: the keys of `ironling load`, and what the slices did.
    func json() throws -> Data {
        let deployment = plan.serving.deployment
        let more: [String: Any] = [
            "simulated": true, "model": deployment.shape.name, "layout": "\(deployment.layout)",
            "devices": deployment.layout.devices * result.slices.count, "notes": plan.notes,
            "memory": deployment.memory.devices.map { device in
                [
                    "name": device.name, "limit_bytes": device.limit, "total_bytes": device.total,
                    "parts": Dictionary(device.parts.map { ($0.name, $0.bytes) }) { $1 },
                ] as [String: Any]
            },
            "slices": result.slices.map(object),
            "operations": [
                "events": result.operations.events, "plans": result.operations.plans,
                "steps": result.operations.steps, "entries": result.operations.entries,
                "submissions": result.operations.submissions,
            ],
        ]
        return try ResultJSON.data(summary, more: more)
    }

    private func object(_ slice: SliceStatistics) -> [String: Any] {
        [
            "name": slice.name, "role": slice.part.rawValue, "ranks": slice.ranks, "slots": slice.slots,
            "kv_tokens": slice.pages * 64, "mean_slots": slice.meanSlots, "peak_slots": slice.peakSlots,
            "mean_kv_tokens": slice.meanPages * 64, "peak_kv_tokens": slice.peakPages * 64,
            "preemptions": slice.preemptions, "busy_s": Double(slice.busyNanoseconds) / 1e9,
            "sent_bytes": slice.links.reduce(0) { $0 + $1.sentBytes },
            "steps": Dictionary(
                slice.steps.map { kind, steps in
                    (
                        kind.rawValue,
                        [
                            "count": steps.count, "prefill_rows": steps.prefillRows,
                            "decode_rows": steps.decodeRows, "total_ms": milliseconds(steps.cost.total),
                            "components_ms": Dictionary(
                                steps.cost.components.map { ($0.component.rawValue, milliseconds($0.time)) }
                            ) { $1 },
                        ] as [String: Any]
                    )
                }
            ) { $1 },
        ]
    }

    private func milliseconds(_ time: Int64) -> Double { Double(time) * 1e-9 }

    private func ratio(_ part: Int, _ whole: Int) -> Double { whole == 0 ? 0 : Double(part) / Double(whole) }

    private func percent(_ share: Double) -> String { "\(number(share * 100, 1)) %" }

    private func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
}
