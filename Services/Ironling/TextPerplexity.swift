import Checkpoint
import Foundation
import HybridModel
import Numerics

/// Perplexity of a text: overlapping windows of `context` tokens, `stride` apart, each scoring the tokens that no window
/// before it scored. Every token but the first of the text is scored once, with at least `context - stride` tokens
/// before it where the text has them.
struct TextPerplexity {
    /// A window of the text and where in it scoring starts.
    struct Window: Equatable {
        /// Token range of the text the model sees.
        let tokens: Range<Int>
        /// First token that is scored, as an index into the text.
        let firstScored: Int
    }

    /// Sum of -ln p and how many tokens it is over.
    struct Score: Equatable {
        var negativeLogLikelihood = 0.0
        var tokenCount = 0

        var perToken: Double { exp(negativeLogLikelihood / Double(max(1, tokenCount))) }
        func perByte(_ bytes: Int) -> Double { exp(negativeLogLikelihood / Double(max(1, bytes))) }
    }

    /// Logits held at a time, bytes.
    private static let logitBytes = 128 << 20

    static func windows(tokenCount: Int, context: Int, stride: Int) -> [Window] {
        var windows: [Window] = []
        var scored = 1
        var start = 0
        while scored < tokenCount {
            let end = min(start + context, tokenCount)
            windows.append(Window(tokens: start..<end, firstScored: scored))
            scored = end
            start += stride
        }
        return windows
    }

    private let forward: ReferenceForward
    private let configuration: ModelConfiguration
    private let state: StateMemory
    private let context: Int
    private let windowsPerStep: Int

    init(_ checkpoint: Checkpoint, context: Int, threads: Int) throws(CheckpointError) {
        configuration = checkpoint.configuration
        self.context = context
        windowsPerStep = max(1, min(8, Self.logitBytes / (4 * configuration.vocabularySize * context)))
        let pages = (context + StateMemory.pageTokens - 1) / StateMemory.pageTokens
        forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: threads),
            maximumRows: windowsPerStep * pages * StateMemory.pageTokens)
        state = try StateMemory(
            configuration: configuration, slotCount: windowsPerStep, pageCount: windowsPerStep * pages)
    }

    /// Scores the tokens after the first; `report` hears how many are done after each step.
    func score(_ tokens: [UInt32], stride: Int, _ report: (Int) -> Void = { _ in }) -> Score {
        let windows = Self.windows(tokenCount: tokens.count, context: context, stride: stride)
        var score = Score()
        for start in Swift.stride(from: 0, to: windows.count, by: windowsPerStep) {
            add(Array(windows[start..<min(windows.count, start + windowsPerStep)]), of: tokens, to: &score)
            report(score.tokenCount)
        }
        return score
    }

    private func add(_ windows: [Window], of tokens: [UInt32], to score: inout Score) {
        let pages = state.pageCount / windowsPerStep
        let segments = windows.enumerated().map { index, window in
            Segment(
                slot: index, pages: Array(index * pages..<(index + 1) * pages), position: 0,
                tokens: Array(tokens[window.tokens]))
        }
        let logits = forward.logits(segments, state: state)
        let vocabulary = configuration.vocabularySize
        var row = 0
        for window in windows {
            for token in window.firstScored..<window.tokens.upperBound {
                let place = (row + token - 1 - window.tokens.lowerBound) * vocabulary
                score.negativeLogLikelihood -= logProbability(
                    of: Int(tokens[token]), logits[place..<place + vocabulary])
                score.tokenCount += 1
            }
            row += window.tokens.count
        }
    }

    private func logProbability(of token: Int, _ logits: ArraySlice<Float>) -> Double {
        let highest = logits.reduce(-Float.infinity, max)
        let mass = logits.reduce(0.0) { $0 + Double(exp($1 - highest)) }
        return Double(logits[logits.startIndex + token] - highest) - log(mass)
    }
}
