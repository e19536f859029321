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
        summary: "Talks with the model: a line is a message, the answer streams. /help lists what else can be typed.",
        options: GatewaySession.options
            + [
                CommandLineOption("system", value: "TEXT", help: "instructions that open the conversation"),
                CommandLineOption("max-tokens", value: "N", help: "tokens of one answer at most", fallback: "256"),
                CommandLineOption("temperature", value: "T", help: "0 is greedy", fallback: "0.7"),
                CommandLineOption("top-k", value: "K", help: "keep the K likeliest; 0 keeps all", fallback: "0"),
                CommandLineOption("top-p", value: "P", help: "keep the likeliest up to this mass", fallback: "0.95"),
                CommandLineOption("seed", value: "S", help: "seed of the random numbers", fallback: "0"),
            ], position: "model")

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        var request = GenerateRequest(prompt: .chat([]))
        request.request.maximumTokens = try values.integer("max-tokens", in: 1...MessageLimits.generatedTokens)
        request.request.sampling.temperature = Float(try values.number("temperature", in: 0...100))
        request.request.sampling.topK = try values.integer("top-k", in: 0...1_000_000)
        request.request.sampling.topP = Float(try values.number("top-p", in: 0...1))
        request.request.sampling.seed = UInt64(try values.integer("seed", in: 0...Int.max))
        try await GatewaySession.with(values, loop) { client in
            let conversation = ChatConversation(client, request, system: values.text("system"))
            if isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 {
                try await atTerminal(conversation, loop)
            } else {
                try await fromPipe(conversation)
            }
        }
    }

    /// What cannot be answered ends a conversation that nobody watches.
    private static func fromPipe(_ conversation: ChatConversation) async throws {
        while let line = await nextLine() {
            switch ChatInput(line) {
            case .message(let text): _ = try await conversation.say(text)
            case let input: if try perform(input, conversation) == .quit { return }
            }
        }
    }

    /// A line of standard input, read on a thread of its own when it is asked for.
    private static func nextLine() async -> String? {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: readLine()) }
        }
    }

    private static func atTerminal(_ conversation: ChatConversation, _ loop: UVLoop) async throws {
        let editor = LineEditor(history: LineEditor.historyFile(ProcessInfo.processInfo.environment))
        loop.onSignal(SIGINT) {
            if conversation.isAnswering { conversation.stopAnswer() } else { editor.interrupt() }
        }
        ServiceProcess.announce("/help lists what can be typed besides messages; Ctrl-D ends")
        var interrupts = 0
        while true {
            switch await editor.read("> ") {
            case .end:
                ServiceProcess.announce("")
                return
            case .interrupted(let wasEmpty):
                ServiceProcess.announce("")
                interrupts = wasEmpty ? interrupts + 1 : 0
                guard interrupts < 2 else { return }
                if interrupts == 1 { ServiceProcess.announce("Ctrl-C again or Ctrl-D ends") }
            case .line(let line):
                interrupts = 0
                if !line.allSatisfy(\.isWhitespace) { editor.remember(line) }
                guard try await answer(ChatInput(line), conversation) else { return }
            }
        }
    }

    /// Does what a line asks for, and says what went wrong; false when that ends the conversation.
    private static func answer(_ input: ChatInput, _ conversation: ChatConversation) async throws -> Bool {
        do {
            guard case .message(let text) = input else { return try perform(input, conversation) == .goOn }
            ServiceProcess.announce(dimmed(try await conversation.say(text).summary))
        } catch let error as RPCError where error.code != .unavailable {
            ServiceProcess.complain(error.message + (error.code == .limitExceeded ? "; /reset starts over" : ""))
        } catch let error as StartError {
            ServiceProcess.complain(error.description)
        }
        return true
    }

    private enum Outcome { case goOn, quit }

    private static func perform(_ input: ChatInput, _ conversation: ChatConversation) throws -> Outcome {
        switch input {
        case .help: ServiceProcess.announce(ChatInput.helpText)
        case .reset: conversation.reset()
        case .system(nil): ServiceProcess.announce(conversation.instructions ?? "there are no instructions")
        case .system(let text?): conversation.instruct(text)
        case .save(let path): try conversation.save(path)
        case .quit: return .quit
        case .refused(let sentence): ServiceProcess.complain(sentence)
        case .nothing, .message: break
        }
        return .goOn
    }

    private static func dimmed(_ text: String) -> String { "\u{1B}[2m\(text)\u{1B}[0m" }
}
