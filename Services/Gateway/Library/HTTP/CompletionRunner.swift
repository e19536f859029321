import EventLoop
import Foundation
import GatewayCore
import HTTP
import JSON
import RPC
import WireProtocol

/// Runs one job: completes all that it asks for at once and writes the answer whole or as it comes. Confined to its loop.
final class CompletionRunner: Sendable {
    private struct State {
        var completions: [Completion]
        var usage = Usage()
        /// Completions that may still be refused.
        var unadmitted: Int
    }

    private let engine: CompletionEngine
    private let response: HTTPResponse
    private let context: CallContext
    private let job: CompletionJob
    private let shape: any AnswerShape
    private let pingMicroseconds: UInt64
    private let state: LoopBound<State>

    /// - pingMicroseconds: silence after which a stream gets a comment; 0 for never.
    init(
        _ job: CompletionJob, engine: CompletionEngine, response: HTTPResponse, context: CallContext, id: String,
        pingMicroseconds: UInt64
    ) {
        self.job = job
        self.pingMicroseconds = pingMicroseconds
        self.engine = engine
        self.response = response
        self.context = context
        let start = Date()
        if case .generate = job.interface {
            shape = GenerateShape(job, id: id, texts: TokenText(engine.codec)) {
                Date().timeIntervalSince(start)
            }
        } else {
            shape = OpenAIShape(
                job, id: id, created: Int(start.timeIntervalSince1970), model: engine.modelName,
                texts: TokenText(engine.codec))
        }
        var state = State(completions: job.completions, unadmitted: job.completions.count)
        state.usage.prompt = job.promptTokens
        self.state = LoopBound(state, on: engine.loop)
    }

    /// Answers. Throws what is to be answered in place of it; what fails once a stream has begun ends it with an error event.
    func run() async throws(APIError) {
        if job.streams { try await stream() } else { try await answer() }
    }

    private func answer() async throws(APIError) {
        if let failure = await completeAll() { throw failure }
        var writer = JSONWriter()
        shape.whole(state.completions, state.usage, &writer)
        response.send(status: 200, contentType: "application/json", body: writer.bytes)
    }

    private func stream() async throws(APIError) {
        let failure = await completeAll()
        if let failure, !response.isStarted { throw failure }
        do throws(RPCError) {
            if let failure {
                try await event { $0.raw(failure.json) }
            } else if job.includesUsage {
                try await event { [self] in shape.usageEvent(state.usage, &$0) }
            }
            try await write { $0.append(contentsOf: "data: [DONE]\n\n".utf8) }
            response.end()
        } catch {
            return  // The client is gone; there is nobody to tell.
        }
    }

    // MARK: Completions

    /// Completes all of them; the first failure, which is returned, ends the others.
    private func completeAll() async -> APIError? {
        guard state.completions.count > 1 else { return await complete(0) }
        return await withTaskGroup(of: APIError?.self) { group in
            for index in state.completions.indices { group.addTask { [self] in await complete(index) } }
            var first: APIError?
            for await failure in group {
                guard let failure, first == nil else { continue }
                first = failure
                group.cancelAll()
            }
            return first
        }
    }

    private func complete(_ index: Int) async -> APIError? {
        do throws(RPCError) {
            let done = try await engine.complete(state.completions[index], context: context, admitted: admitted) {
                [self] item, completion throws(RPCError) in
                state.usage.completion += item.tokens.count
                if job.streams { try await event { [self] in shape.event(item, completion, state.usage, &$0) } }
            }
            state.completions[index] = done
            if done.isFirstOfPrompt { state.usage.cached += done.end?.cachedTokens ?? 0 }
            if job.streams { try await event { [self] in shape.endEvent(done, state.usage, &$0) } }
            return nil
        } catch {
            return APIError(error)
        }
    }

    /// A stream begins when all completions are admitted: behind a proxy a client must not wait for its first token to learn
    /// that there will be an answer, and what refuses a request at once still has a status of its own.
    private func admitted() {
        state.unadmitted -= 1
        if state.unadmitted == 0, job.streams { begin() }
    }

    // MARK: Events

    /// Sends one event, and the head of the response if it is the first.
    private func event(_ fill: (inout JSONWriter) -> Void) async throws(RPCError) {
        try await write { bytes in
            bytes.append(contentsOf: "data: ".utf8)
            var writer = JSONWriter()
            swap(&writer.bytes, &bytes)
            fill(&writer)
            swap(&writer.bytes, &bytes)
            bytes.append(contentsOf: "\n\n".utf8)
        }
    }

    private func begin() {
        response.beginStream(
            status: 200, contentType: "text/event-stream; charset=utf-8",
            headers: [("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")],
            filler: .eventStream(afterMicroseconds: pingMicroseconds))
    }

    private func write(_ fill: (inout [UInt8]) -> Void) async throws(RPCError) {
        if !response.isStarted { begin() }
        do throws(HTTPError) { try await response.write(capacity: 512, fill) } catch {
            throw RPCError(.cancelled, error.description)
        }
    }
}
