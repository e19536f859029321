import EventLoop
import Foundation
import Glibc
import RPC
import ServiceSupport
import WireProtocol

/// `ironling chat`: a conversation in the terminal, or one question per line from a pipe.
enum ChatCommand {
    static let options = CommandLineOptions(
        program: "ironling chat",
        summary: "Talks with the model: a line is a message, the answer streams. /reset starts over, /quit ends.",
        options: GatewaySession.options + [
            CommandLineOption("system", value: "TEXT", help: "instructions that open the conversation"),
            CommandLineOption("max-tokens", value: "N", help: "tokens of one answer at most", fallback: "256"),
            CommandLineOption("temperature", value: "T", help: "0 is greedy", fallback: "0.7"),
            CommandLineOption("top-k", value: "K", help: "keep the K likeliest; 0 keeps all", fallback: "0"),
            CommandLineOption("top-p", value: "P", help: "keep the likeliest up to this mass", fallback: "0.95"),
            CommandLineOption("seed", value: "S", help: "seed of the random numbers", fallback: "0"),
        ])

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        var request = GenerateRequest(prompt: .chat([]))
        request.maxTokens = UInt32(try values.integer("max-tokens", in: 1...Int(MessageLimits.generatedTokens)))
        request.sampling.temperature = Float(try values.number("temperature", in: 0...100))
        request.sampling.topK = UInt32(try values.integer("top-k", in: 0...1_000_000))
        request.sampling.topP = Float(try values.number("top-p", in: 0...1))
        request.sampling.seed = UInt64(try values.integer("seed", in: 0...Int.max))
        let opening = values.text("system").map { [GenerateRequest.ChatTurn(role: "system", content: $0)] } ?? []
        try await GatewaySession.with(values, loop) { client in
            try await converse(client, request, opening)
        }
    }

    private static func converse(
        _ client: RPCClient, _ request: GenerateRequest, _ opening: [GenerateRequest.ChatTurn]
    ) async throws {
        var (request, turns) = (request, opening)
        let isTerminal = isatty(STDIN_FILENO) == 1
        if isTerminal { ServiceProcess.announce("/reset starts over, /quit ends") }
        for await line in lines(prompt: isTerminal ? "> " : "") {
            switch line.trimmingCharacters(in: .whitespaces) {
            case "": continue
            case "/quit": return
            case "/reset": turns = opening
            default:
                turns.append(GenerateRequest.ChatTurn(role: "user", content: line))
                request.prompt = .chat(turns)
                do {
                    turns.append(
                        GenerateRequest.ChatTurn(role: "assistant", content: try await answer(client, request)))
                } catch let error as RPCError where isTerminal && error.code != .unavailable {
                    ServiceProcess.complain(
                        error.message + (error.code == .limitExceeded ? "; /reset starts over" : ""))
                    turns.removeLast()
                }
            }
        }
    }

    /// Streams one answer to standard output and returns it.
    private static func answer(_ client: RPCClient, _ request: GenerateRequest) async throws -> String {
        let stream = try await client.stream(
            .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 3_600_000_000)
        var text = ""
        while let payload = try await stream.next() {
            let item = try GenerateItem(decoding: payload.metadata)
            text += item.text
            StandardStream.output.write(item.text)
        }
        ServiceProcess.announce("")
        return text
    }

    /// Lines of standard input, read on a thread of their own when they are asked for.
    private static func lines(prompt: String) -> AsyncStream<String> {
        AsyncStream {
            await withCheckedContinuation { continuation in
                Thread.detachNewThread {
                    StandardStream.output.write(prompt)
                    continuation.resume(returning: readLine())
                }
            }
        }
    }
}
