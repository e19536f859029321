import Foundation
import RPC
import WireProtocol

/// The JSON body of `/v1/completions`, checked field by field.
struct CompletionRequest {
    /// What the engine is asked.
    var request: GenerateRequest
    /// True for server-sent events.
    var streams = false

    private static let known: Set<String> = [
        "model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids",
        "stream", "logprobs", "ignore_eos", "repetition_penalty", "presence_penalty", "frequency_penalty", "user", "n",
        "echo", "stream_options",
    ]

    init(json bytes: [UInt8]) throws(RPCError) {
        guard let parsed = try? JSONSerialization.jsonObject(with: Data(bytes)), let object = parsed as? [String: Any]
        else { throw RPCError(.invalidArgument, "the body is not a JSON object in UTF-8") }
        let fields = Fields(object: object.filter { !($0.value is NSNull) })
        for name in fields.object.keys.sorted() where !Self.known.contains(name) {
            throw RPCError(.invalidArgument, "field \"\(name)\" is not supported")
        }
        guard try fields.integer("n", in: 1...1, fallback: 1) == 1, try !fields.flag("echo") else {
            throw RPCError(.invalidArgument, "echo is not supported")
        }
        request = GenerateRequest(prompt: try fields.prompt())
        request.model = try fields.text("model") ?? ""
        request.maxTokens = UInt32(
            try fields.integer("max_tokens", in: 1...Int(MessageLimits.generatedTokens), fallback: 16))
        request.sampling.temperature = try fields.number("temperature", in: 0...100, fallback: 1)
        request.sampling.topP = try fields.number("top_p", in: 0...1, fallback: 1)
        request.sampling.topK = UInt32(try fields.integer("top_k", in: 0...1_000_000, fallback: 0))
        request.sampling.minP = try fields.number("min_p", in: 0...1, fallback: 0)
        request.sampling.repetitionPenalty = try fields.number("repetition_penalty", in: 0.01...100, fallback: 1)
        request.sampling.presencePenalty = try fields.number("presence_penalty", in: -100...100, fallback: 0)
        request.sampling.frequencyPenalty = try fields.number("frequency_penalty", in: -100...100, fallback: 0)
        request.sampling.seed =
            fields.object["seed"] == nil
            ? UInt64.random(in: 0...UInt64.max) : UInt64(try fields.integer("seed", in: 0...Int.max, fallback: 0))
        if fields.object["logprobs"] != nil {
            request.logprobs = UInt8(
                try fields.integer("logprobs", in: 0...Int(MessageLimits.topLogprobs), fallback: 0))
        }
        request.stop = try fields.stops()
        request.stopTokenIDs = try fields.tokens("stop_token_ids", limit: MessageLimits.stopTokens)
        request.ignoresEnd = try fields.flag("ignore_eos")
        streams = try fields.flag("stream")
    }

    private struct Fields {
        let object: [String: Any]

        func refuse(_ name: String, _ reason: String) -> RPCError { RPCError(.invalidArgument, "\(name) \(reason)") }

        func number(_ name: String, in range: ClosedRange<Float>, fallback: Float) throws(RPCError) -> Float {
            guard let raw = object[name] else { return fallback }
            guard let number = raw as? NSNumber, range.contains(number.floatValue) else {
                throw refuse(name, "must be a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number.floatValue
        }

        func integer(_ name: String, in range: ClosedRange<Int>, fallback: Int) throws(RPCError) -> Int {
            guard let raw = object[name] else { return fallback }
            guard let number = raw as? NSNumber, number.doubleValue == number.doubleValue.rounded(),
                number.doubleValue.magnitude < 9.2e18, range.contains(number.intValue)
            else { throw refuse(name, "must be a whole number from \(range.lowerBound) to \(range.upperBound)") }
            return number.intValue
        }

        func flag(_ name: String) throws(RPCError) -> Bool {
            guard let raw = object[name] else { return false }
            guard let flag = raw as? Bool else { throw refuse(name, "must be true or false") }
            return flag
        }

        func text(_ name: String) throws(RPCError) -> String? {
            guard let raw = object[name] else { return nil }
            guard let text = raw as? String else { throw refuse(name, "must be a string") }
            return text
        }

        func tokens(_ name: String, limit: Int) throws(RPCError) -> [UInt32] {
            guard let raw = object[name] else { return [] }
            guard let numbers = raw as? [NSNumber], numbers.count <= limit else {
                throw refuse(name, "must be at most \(limit) token ids")
            }
            var ids: [UInt32] = []
            for number in numbers {
                guard let id = UInt32(exactly: number.doubleValue) else {
                    throw refuse(name, "holds \(number), which is not a token id")
                }
                ids.append(id)
            }
            return ids
        }

        func prompt() throws(RPCError) -> GenerateRequest.Prompt {
            guard let raw = object["prompt"] else { throw refuse("prompt", "is missing") }
            guard let text = raw as? String else {
                return .tokens(try tokens("prompt", limit: MessageLimits.promptTokens))
            }
            guard text.utf8.count <= MessageLimits.promptBytes else {
                throw refuse("prompt", "has \(text.utf8.count) bytes, the limit is \(MessageLimits.promptBytes)")
            }
            return .text(text)
        }

        func stops() throws(RPCError) -> [String] {
            guard let raw = object["stop"] else { return [] }
            let stops = (raw as? String).map { [$0] } ?? (raw as? [String])
            guard let stops, stops.count <= MessageLimits.stopStrings,
                stops.allSatisfy({ $0.utf8.count <= MessageLimits.stopBytes })
            else {
                throw refuse(
                    "stop", "must be at most \(MessageLimits.stopStrings) strings of \(MessageLimits.stopBytes) bytes")
            }
            return stops
        }
    }
}
