import EventLoop
import Foundation
import RPC
import ServiceSupport
import Serving
import WireProtocol

/// A conversation with the model: who said what, and the answer that is being streamed. Confined to its loop.
final class ChatConversation: @unchecked Sendable {
    private let client: RPCClient
    private var request: GenerateRequest
    private var system: String?
    private var turns: [GenerateRequest.ChatTurn] = []
    private var stream: RPCStream?
    private var wasStopped = false

    init(_ client: RPCClient, _ request: GenerateRequest, system: String?) {
        self.client = client
        self.request = request
        self.system = system
        reset()
    }

    /// True while an answer is streamed.
    private(set) var isAnswering = false

    /// Forgets what was said.
    func reset() {
        turns = system.map { [GenerateRequest.ChatTurn(role: "system", content: $0)] } ?? []
    }

    /// Starts over with other instructions.
    func instruct(_ text: String) {
        system = text
        reset()
    }

    /// What opens the conversation.
    var instructions: String? { system }

    /// Ends the answer that is being streamed; what there is of it counts as the answer.
    func stopAnswer() {
        wasStopped = true
        stream?.cancel()
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
        turns.append(GenerateRequest.ChatTurn(role: "user", content: text))
        request.prompt = .chat(turns)
        (isAnswering, wasStopped) = (true, false)
        defer { (isAnswering, stream) = (false, nil) }
        var answer = Answer()
        var said = ""
        do {
            try await receive(&answer, &said)
        } catch {
            turns.removeLast()
            throw error
        }
        turns.append(GenerateRequest.ChatTurn(role: "assistant", content: said))
        return answer
    }

    private func receive(_ answer: inout Answer, _ said: inout String) async throws {
        let start = client.loop.now
        let stream = try await client.stream(
            .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 3_600_000_000)
        self.stream = stream
        if wasStopped { stream.cancel() }
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
        } catch let error as RPCError where wasStopped && error.code == .cancelled {
            answer.end = "; stopped"
        }
        ServiceProcess.announce("")
    }

    /// Writes the conversation as a JSON list of messages.
    func save(_ path: String) throws {
        let messages = turns.map { ["role": $0.role, "content": $0.content] }
        let data = try JSONSerialization.data(
            withJSONObject: ["messages": messages], options: [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes])
        do { try data.write(to: URL(fileURLWithPath: path)) } catch {
            throw StartError("\(path): \(ErrorText.sentence(error))")
        }
    }
}
