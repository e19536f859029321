import EventLoop
import Foundation
import RPC
import ServiceSupport
import Serving
import WireProtocol

/// A conversation with the model: who said what, and the answer that is being streamed.
final class ChatConversation: Sendable {
    private struct State {
        var request: GenerateRequest
        var system: String?
        var turns: [GenerateRequest.ChatTurn] = []
        var stream: RPCStream?
        var wasStopped = false
        var isAnswering = false
    }

    private let client: RPCClient
    private let state: LoopBound<State>

    init(_ client: RPCClient, _ request: GenerateRequest, system: String?) {
        self.client = client
        state = LoopBound(State(request: request, system: system), on: client.loop)
        reset()
    }

    /// True while an answer is streamed.
    var isAnswering: Bool { state.isAnswering }

    /// Forgets what was said.
    func reset() {
        state.turns = state.system.map { [GenerateRequest.ChatTurn(role: "system", content: $0)] } ?? []
    }

    /// Starts over with other instructions.
    func instruct(_ text: String) {
        state.system = text
        reset()
    }

    /// What opens the conversation.
    var instructions: String? { state.system }

    /// Ends the answer that is being streamed; what there is of it counts as the answer.
    func stopAnswer() {
        state.wasStopped = true
        state.stream?.cancel()
    }

    /// What an answer came to.
    struct Answer {
        var tokens = 0
        var firstMicroseconds: UInt64 = 0
        var microseconds: UInt64 = 0
        /// Why it ended.
        var end = ""

        /// Tokens and how fast they came, in one line.
        var summary: String {
            let seconds = Double(microseconds - min(microseconds, firstMicroseconds)) / 1e6
            let rate =
                tokens > 1 && seconds > 0 ? String(format: ", %.1f tokens/s", Double(tokens - 1) / seconds) : ""
            let first = String(format: ", first after %.2f s", Double(firstMicroseconds) / 1e6)
            return "[\(tokens) tokens\(rate)\(first)\(end)]"
        }
    }

    /// Says `text` to the model and streams its answer to standard output. A message that cannot be answered is not part
    /// of the conversation.
    func say(_ text: String) async throws -> Answer {
        state.turns.append(GenerateRequest.ChatTurn(role: "user", content: text))
        state.request.prompt = .chat(state.turns)
        (state.isAnswering, state.wasStopped) = (true, false)
        defer { (state.isAnswering, state.stream) = (false, nil) }
        var answer = Answer()
        var said = ""
        do {
            try await receive(&answer, &said)
        } catch {
            state.turns.removeLast()
            throw error
        }
        state.turns.append(GenerateRequest.ChatTurn(role: "assistant", content: said))
        return answer
    }

    private func receive(_ answer: inout Answer, _ said: inout String) async throws {
        let start = client.loop.now
        let stream = try await client.stream(
            .generate, RPCPayload(metadata: state.request.encoded()), timeoutMicroseconds: 3_600_000_000)
        state.stream = stream
        if state.wasStopped { stream.cancel() }
        do {
            while let payload = try await stream.next() {
                let item = try GenerateItem(decoding: payload.metadata)
                if answer.tokens == 0 { answer.firstMicroseconds = client.loop.now - start }
                answer.tokens += item.tokens.count
                answer.microseconds = client.loop.now - start
                said += item.text
                StandardStream.output.write(item.text)
            }
            let end = try End(decoding: stream.final?.metadata ?? [])
            if end.reason == .length { answer.end = "; cut off at --max-tokens or the context" }
        } catch let error as RPCError where state.wasStopped && error.code == .cancelled {
            answer.end = "; stopped"
        }
        ServiceProcess.announce("")
    }

    /// Writes the conversation as a JSON list of messages.
    func save(_ path: String) throws {
        let messages = state.turns.map { ["role": $0.role, "content": $0.content] }
        let data = try JSONSerialization.data(
            withJSONObject: ["messages": messages], options: [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes])
        do { try data.write(to: URL(fileURLWithPath: path)) } catch {
            throw StartError("\(path): \(ErrorText.sentence(error))")
        }
    }
}
