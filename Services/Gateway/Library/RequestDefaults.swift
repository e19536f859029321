import JSON
import Serving

/// What a request is sampled with where it says nothing: the interfaces' own defaults, and over them the checkpoint's.
/// Clients of the binary port say everything themselves.
public struct RequestDefaults: Sendable, Equatable {
    /// 0 is greedy.
    package var temperature: Float?
    /// Keep the smallest set of likeliest tokens whose probability reaches this.
    package var topP: Float?
    /// Keep the k likeliest; 0 keeps all.
    package var topK: Int?
    /// Drop tokens less likely than this times the likeliest.
    package var minP: Float?
    /// Divides positive and multiplies negative logits of tokens in prompt or answer.
    package var repetitionPenalty: Float?
    /// The file they come from; nil for the interfaces' own.
    package var source: String?

    /// The interfaces' own.
    public init() {}

    /// The fields that have a default, by the names that requests have for them.
    package static let fields = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"]

    /// Sets what a request did not say; `said` has the names of the fields it has.
    package func fill(_ sampling: inout Sampling, said: Set<String>) {
        func unless<Value>(_ name: String, _ value: Value?, _ set: (Value) -> Void) {
            if let value, !said.contains(name) { set(value) }
        }
        unless("temperature", temperature) { sampling.temperature = $0 }
        unless("top_p", topP) { sampling.topP = $0 }
        unless("top_k", topK) { sampling.topK = $0 }
        unless("min_p", minP) { sampling.minP = $0 }
        unless("repetition_penalty", repetitionPenalty) { sampling.repetitionPenalty = $0 }
    }

    /// Writes them as `generation_defaults` of `/v1/models`, with where they come from.
    func write(_ writer: inout JSONWriter) {
        writer.beginObject()
        writer.name("temperature")
        writer.value(temperature ?? 1)
        writer.name("top_p")
        writer.value(topP ?? 1)
        writer.name("top_k")
        writer.value(topK ?? 0)
        writer.name("min_p")
        writer.value(minP ?? 0)
        writer.name("repetition_penalty")
        writer.value(repetitionPenalty ?? 1)
        writer.name("source")
        writer.value(source ?? "interface")
        writer.endObject()
    }
}
