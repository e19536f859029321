import LoadTesting
import RPC
import ServiceSupport
import Serving
import WireProtocol

/// One completion to ask for.
struct CompletionCall: Sendable {
    let request: PlannedRequest
    /// True to go on past the model's end tokens, so that every answer has the planned length.
    let ignoresEnd: Bool
    /// The answer must be complete by then.
    let timeoutMicroseconds: UInt64
}

/// What the server says at the end of an answer.
struct CompletionEnd: Sendable {
    var inputTokens: Int?
    var outputTokens: Int?
    var cachedTokens: Int?
    /// True when we gave the answer up.
    var wasCancelled = false
}

/// A way to ask for completions.
protocol CompletionTransport: Sendable {
    /// Streams an answer. `onOutput` hears how many tokens each piece has, and gives the answer up by returning false.
    func complete(
        _ call: CompletionCall, _ onOutput: (Int) -> Bool
    ) async throws(CompletionFailure) -> CompletionEnd
}

/// The binary protocol, over the one connection of an `RPCClient`.
struct BinaryTransport: CompletionTransport {
    let client: RPCClient

    func complete(
        _ call: CompletionCall, _ onOutput: (Int) -> Bool
    ) async throws(CompletionFailure) -> CompletionEnd {
        do throws(RPCError) {
            let stream = try await client.stream(
                .generate, RPCPayload(metadata: message(call).encoded()),
                timeoutMicroseconds: call.timeoutMicroseconds)
            while let payload = try await stream.next() {
                let item = try ServiceInputs.decoded { () throws(WireError) in
                    try GenerateItem(decoding: payload.metadata)
                }
                guard item.tokens.isEmpty || onOutput(item.tokens.count) else {
                    stream.cancel()
                    return CompletionEnd(wasCancelled: true)
                }
            }
            let final = stream.final?.metadata ?? []
            let end = try ServiceInputs.decoded { () throws(WireError) in try End(decoding: final) }
            return CompletionEnd(
                inputTokens: end.promptTokens, outputTokens: end.completionTokens, cachedTokens: end.cachedTokens)
        } catch {
            throw CompletionFailure(
                error.code == .deadlineExceeded ? "time-out" : "RPC \(error.code)", error.message)
        }
    }

    private func message(_ call: CompletionCall) -> GenerateRequest {
        var message =
            switch call.request.prompt {
            case .tokens(let ids): GenerateRequest(prompt: .tokens(ids))
            case .text(let text): GenerateRequest(prompt: .text(text))
            }
        message.request.maximumTokens = call.request.outputTokens
        message.ignoresEnd = call.ignoresEnd
        return message
    }
}
