import Checkpoint
import Foundation
import GatewayService
import HybridModel
import JSON
import Tokenization

/// What `ironling inspect` shows, as rows for people and as one object for programs.
struct InspectReport {
    /// One line: a name, the words, and the same as values.
    private struct Row {
        var name: String
        var words: String
        var key: String
        var value: JSONValue
    }

    private var rows: [Row] = []
    private var notes: [String] = []
    private let title: String
    /// What keeps the checkpoint from being served.
    private(set) var problems: [String] = []

    init(
        _ checkpoint: Checkpoint, _ footprint: CheckpointFootprint, _ fit: MemoryFit, shards: Int, requests: Int,
        tokens: Int
    ) {
        title = "\(checkpoint.name) (\(checkpoint.directory.path))"
        notes = checkpoint.configuration.notes
        add("name", "name", checkpoint.name, .string(checkpoint.name))
        addModel(checkpoint.configuration)
        addSizes(checkpoint, footprint)
        addMemory(footprint, fit, shards: shards, requests: requests, tokens: tokens)
        addWords(checkpoint)
    }

    /// Rows under a title.
    var text: String {
        let width = (rows.map(\.name.count).max() ?? 0) + 2
        var lines = [title]
        lines += rows.dropFirst().map {
            "  \($0.name)\(String(repeating: " ", count: width - $0.name.count))\($0.words)"
        }
        lines += notes.isEmpty ? [] : ["", "notes:"] + notes.map { "  \($0)" }
        return lines.joined(separator: "\n")
    }

    /// The same as values: bytes as whole numbers.
    var json: JSONValue {
        .object(
            rows.map { JSONValue.Member($0.key, $0.value) } + [
                .init("notes", .array(notes.map(JSONValue.string))),
                .init("problems", .array(problems.map(JSONValue.string))),
            ])
    }

    private mutating func add(_ name: String, _ key: String, _ words: String, _ value: JSONValue) {
        rows.append(Row(name: name, words: words, key: key, value: value))
    }

    // MARK: Parts

    private mutating func addModel(_ c: ModelConfiguration) {
        add("architecture", "architecture", "Bailing MoE V2.5", .string("BailingMoeV2_5ForCausalLM"))
        let (linear, full) = (c.linearLayers.count, c.fullAttentionLayers.count)
        let sparse = c.layerCount - c.denseLayerCount
        let groups = c.groupCount > 1 ? " from \(c.keptGroupCount) of \(c.groupCount) groups" : ""
        let shared = c.sharedIntermediateSize > 0 ? " and shared ones" : ""
        add(
            "layers", "layers",
            "\(c.layerCount): \(linear) linear attention, \(full) MLA; \(c.denseLayerCount) dense, \(sparse) MoE with "
                + "\(c.expertsPerToken) of \(c.expertCount) experts\(groups)\(shared) per token",
            .object([
                .init("linear_attention", .count(linear)), .init("full_attention", .count(full)),
                .init("dense", .count(c.denseLayerCount)), .init("moe", .count(sparse)),
                .init("mtp", .count(c.nextTokenLayerCount)), .init("experts", .count(c.expertCount)),
                .init("experts_per_token", .count(c.expertsPerToken)),
            ]))
        let scaling = c.yarn.map { ", YaRN of \($0.factor) from \($0.originalMaximumPositions.grouped)" } ?? ""
        add(
            "context", "context", "\(c.maximumPositions.grouped) tokens\(scaling)", .count(c.maximumPositions))
    }

    private mutating func addSizes(_ checkpoint: Checkpoint, _ footprint: CheckpointFootprint) {
        let (all, active) = (footprint.parameterCount, footprint.activeParameterCount)
        add(
            "parameters", "parameters", "\(Self.short(all)), \(Self.short(active)) of them active per token",
            .object([.init("total", .count(all)), .init("active", .count(active))]))
        let formats = footprint.formats.sorted { ($0.value.byteCount, $1.key) > ($1.value.byteCount, $0.key) }
        add(
            "formats", "formats",
            formats.map {
                "\($0.key) \(MemoryFit.gibibytes($0.value.byteCount)) in \($0.value.tensorCount.grouped) tensors"
            }
            .joined(separator: "; "),
            .object(
                formats.map { format in
                    .init(
                        format.key,
                        .object([
                            .init("tensors", .count(format.value.tensorCount)),
                            .init("bytes", .count(format.value.byteCount)),
                        ]))
                }))
        let count = checkpoint.files.count
        let total = footprint.formats.values.reduce(0) { $0 + $1.byteCount }
        add(
            "on disk", "bytes", "\(MemoryFit.gibibytes(total)) in \(count) file\(count == 1 ? "" : "s")", .count(total))
    }

    private mutating func addMemory(
        _ footprint: CheckpointFootprint, _ fit: MemoryFit, shards: Int, requests: Int, tokens: Int
    ) {
        let (bytes, attention) = (footprint.bytes, footprint.bytes.attention)
        let shards =
            shards > 1 ? " in \(shards) shards of \(MemoryFit.gibibytes(footprint.expertsBytes(shards: shards)))" : ""
        let all = bytes.routed + bytes.shared
        add(
            "weights", "weights",
            "attention \(MemoryFit.gibibytes(attention)), experts \(MemoryFit.gibibytes(all))\(shards), sampler "
                + MemoryFit.gibibytes(bytes.sampler)
                + (bytes.unused > 0 ? ", not loaded \(MemoryFit.gibibytes(bytes.unused))" : ""),
            .object([
                .init("attention", .count(attention)), .init("experts", .count(all)),
                .init("sampler", .count(bytes.sampler)), .init("not_loaded", .count(bytes.unused)),
            ]))
        add(
            "read per token", "read_per_token", MemoryFit.gibibytes(footprint.bytesReadPerToken),
            .count(footprint.bytesReadPerToken))
        add(
            "state", "state",
            "\(MemoryFit.gibibytes(footprint.bytesPerRequest)) per request and \(MemoryFit.gibibytes(footprint.bytesPerToken)) "
                + "per token; \(MemoryFit.gibibytes(fit.stateBytes)) for \(requests.grouped) requests and \(tokens.grouped) tokens",
            .object([
                .init("per_request", .count(footprint.bytesPerRequest)),
                .init("per_token", .count(footprint.bytesPerToken)), .init("planned", .count(fit.stateBytes)),
            ]))
        let limit = fit.memory.isLimited ? " (a container's limit)" : ""
        add(
            "memory", "memory",
            "\(MemoryFit.gibibytes(fit.memory.available)) available of \(MemoryFit.gibibytes(fit.memory.total))\(limit): "
                + fit.verdict.rawValue,
            .object([
                .init("available", .count(fit.memory.available)), .init("total", .count(fit.memory.total)),
                .init("needed", .count(fit.weightBytes)), .init("verdict", .string(fit.verdict.rawValue)),
            ]))
        if let sentence = fit.sentence { notes.append(sentence) }
    }

    /// Tokenizer, ends and sampling: what is wrong with them is a problem, and everything else is shown all the same.
    private mutating func addWords(_ checkpoint: Checkpoint) {
        var tokenizer: Tokenizer?
        let file = checkpoint.directory.appendingPathComponent("tokenizer.json")
        do throws(TokenizerError) { tokenizer = try Tokenizer.ifThere(file) } catch { problems.append("\(error)") }
        let size = tokenizer.map { "\($0.vocabularySize.grouped) tokens" }
        add(
            "tokenizer", "tokenizer", size ?? (problems.isEmpty ? "none: only token ids are served" : "not readable"),
            tokenizer.map { .count($0.vocabularySize) } ?? .null)
        let ends = checkpoint.configuration.endTokenIDs
        let named = ends.map { id in
            "\(id)" + (tokenizer?.tokenBytes(id).map { " \(String(decoding: $0, as: UTF8.self))" } ?? "")
        }
        add(
            "ends with", "end_ids", named.isEmpty ? "none: answers end at their length" : named.joined(separator: ", "),
            .array(ends.map { .count(Int($0)) }))
        var defaults = GenerationDefaults()
        do throws(CheckpointError) { defaults = try checkpoint.generationDefaults() } catch {
            problems.append("\(error)")
        }
        let members = defaults.members
        add(
            "generation", "generation",
            members.isEmpty
                ? "no defaults" : members.map { "\($0.name) \($0.value.text)" }.joined(separator: ", "),
            .object(members))
        let template = ChatTemplateFile(directory: checkpoint.directory)
        let isBuiltIn = template?.isBuiltIn ?? true
        add(
            "chat template", "chat_template",
            isBuiltIn ? "built-in" : "built-in, not that of \(template?.file ?? "the checkpoint")",
            template.map { JSONValue.string($0.file) } ?? .null)
        notes += defaults.notes + (tokenizer?.notes ?? [])
        if let template, !isBuiltIn { notes.append(template.warning) }
    }

    private static func short(_ count: Int) -> String {
        for (unit, name) in [(1e12, "trillion"), (1e9, "billion"), (1e6, "million")] where Double(count) >= unit {
            return String(format: "%.1f", Double(count) / unit) + " \(name)"
        }
        return count.grouped
    }
}

extension JSONValue {
    fileprivate static func count(_ value: Int) -> JSONValue { .number("\(value)") }
}

extension Int {
    /// With a comma between groups of three digits.
    fileprivate var grouped: String {
        var digits = String(magnitude)
        var place = digits.count - 3
        while place > 0 {
            digits.insert(",", at: digits.index(digits.startIndex, offsetBy: place))
            place -= 3
        }
        return (self < 0 ? "-" : "") + digits
    }
}
