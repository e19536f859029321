import Scheduling
import Serving
import TestSupport
import Testing

@Suite struct TransferManifestTests {
    @Test func aManifestKnowsItsBytes() throws {
        #expect(try makeManifest().byteCount == 2 * 16 * 4 + 130 * 6 * 4)
    }

    @Test(arguments: [
        (0..<0, 64, [6]), (-64..<64, 64, [6]), (1..<64, 64, [6]), (0..<(1 << 25), 64, [6]), (0..<64, 0, [6]),
        (0..<64, 64, [0]), (0..<64, 64, [1 << 21]), (0..<64, 64, [1 << 20, 1 << 20, 1 << 20, 1 << 20]),
        (0..<64, 64, [1 << 20, 2]),
        (0..<64, 64, [1, 1, 1, 1, 1]),
    ])
    func hostileManifestsAreRefused(_ positions: Range<Int>, _ pageTokens: Int, _ shape: [Int]) {
        #expect(throws: TransferRefusal.self) {
            try TransferManifest(
                fingerprint: "tiny", positions: positions, pageTokens: pageTokens,
                layers: [TransferLayer(index: 0, kind: .latent, element: .float32, shape: shape)], generation: 1)
        }
    }

    @Test func layersMustAscend() {
        let layer = TransferLayer(index: 3, kind: .recurrent, element: .float32, shape: [4])
        #expect(throws: TransferRefusal.self) {
            try TransferManifest(
                fingerprint: "tiny", positions: 0..<64, pageTokens: 64, layers: [layer, layer], generation: 1)
        }
    }
}

@Suite struct SegmentLedgerTests {
    private let all: [(TransferSegment, Int)] = [
        (.latents(layer: 2, tokens: 0..<100), 100 * 24), (.latents(layer: 2, tokens: 100..<128), 28 * 24),
        (.latents(layer: 2, tokens: 128..<130), 2 * 24), (.state(layer: 0), 64), (.state(layer: 1), 64),
    ]

    @Test(arguments: 1...24 as ClosedRange<UInt64>)
    func completeOnlyWhenAllHaveComeInWhateverOrder(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        var ledger = SegmentLedger(manifest: try makeManifest())
        for (segment, bytes) in all.shuffled(using: &generator) {
            #expect(!ledger.isComplete, "seed \(seed)")
            try ledger.enter(segment, byteCount: bytes)
        }
        #expect(ledger.isComplete && ledger.byteCount == ledger.manifest.byteCount && ledger.outstanding.isEmpty)
    }

    /// Which of some segments are taken when nothing, a part or all has passed, and what is outstanding then.
    @Test func everyStateAnswersEverySegment() throws {
        let events: [(TransferSegment, Int)] = [
            all[0], (.latents(layer: 2, tokens: 99..<101), 48), all[1], all[3], (.state(layer: 0), 65),
            (.state(layer: 2), 64),
        ]
        let rows: [(passed: Int, taken: [Bool], outstanding: String)] = [
            (0, [true, true, true, true, false, false], "MLA layer 2: 130 tokens, linear layer 0, linear layer 1"),
            (1, [false, false, true, true, false, false], "MLA layer 2: 30 tokens, linear layer 0, linear layer 1"),
            (3, [false, false, false, true, false, false], "linear layer 0, linear layer 1"),
            (4, [false, false, false, false, false, false], "linear layer 1"),
            (5, [false, false, false, false, false, false], ""),
        ]
        for (passed, taken, outstanding) in rows {
            var ledger = SegmentLedger(manifest: try makeManifest())
            for (segment, bytes) in all.prefix(passed) { try ledger.enter(segment, byteCount: bytes) }
            #expect(ledger.outstanding == outstanding && ledger.isComplete == outstanding.isEmpty)
            for ((segment, bytes), isTaken) in zip(events, taken) {
                var moved = ledger
                let isEntered = (try? moved.enter(segment, byteCount: bytes)) != nil
                #expect(isEntered == isTaken, "\(segment) after \(passed)")
                #expect(moved.byteCount == ledger.byteCount + (isTaken ? bytes : 0))
            }
        }
    }

    /// Random ranges against a plain set of tokens: accepted exactly when none of them was there.
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func everyTokenPassesExactlyOnce(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        let positions = 64..<Int.random(in: 65...700, using: &generator)
        var ledger = SegmentLedger(manifest: try makeManifest(positions: positions))
        var passed: Set<Int> = []
        for _ in 0..<2000 where passed.count < positions.count {
            let first = Int.random(in: positions, using: &generator)
            let count = Int.random(in: 1...(Bool.random(using: &generator) ? 4 : 200), using: &generator)
            let tokens = first..<min(first + count, positions.upperBound)
            let isNew = tokens.allSatisfy { !passed.contains($0) }
            let isTaken = (try? ledger.enter(.latents(layer: 2, tokens: tokens), byteCount: tokens.count * 24)) != nil
            #expect(isTaken == isNew, "seed \(seed): \(tokens)")
            if isTaken { passed.formUnion(tokens) }
        }
        for token in positions where !passed.contains(token) {
            try ledger.enter(.latents(layer: 2, tokens: token..<(token + 1)), byteCount: 24)
        }
        #expect(ledger.outstanding == "linear layer 0, linear layer 1", "seed \(seed)")
    }

    @Test func aSegmentThatCameBeforeIsRefusedAndChangesNothing() throws {
        var ledger = SegmentLedger(manifest: try makeManifest())
        try ledger.enter(.latents(layer: 2, tokens: 64..<128), byteCount: 64 * 24)
        try ledger.enter(.state(layer: 1), byteCount: 64)
        let error = #expect(throws: TransferRefusal.self) {
            try ledger.enter(.latents(layer: 2, tokens: 0..<128), byteCount: 128 * 24)
        }
        #expect(error?.description == "MLA layer 2: token 64 came twice")
        let again = #expect(throws: TransferRefusal.self) { try ledger.enter(.state(layer: 1), byteCount: 64) }
        #expect(again?.description == "linear layer 1: the state came twice")
        #expect(ledger.segmentCount == 2 && ledger.outstanding == "MLA layer 2: 66 tokens, linear layer 0")
        try ledger.enter(.latents(layer: 2, tokens: 0..<64), byteCount: 64 * 24)
    }

    @Test(arguments: [
        (TransferSegment.state(layer: 2), 64, "linear layer 2 is not one of this transfer"),
        (.state(layer: -1), 64, "linear layer -1 is not one of this transfer"),
        (.latents(layer: 1, tokens: 0..<1), 24, "MLA layer 1 is not one of this transfer"),
        (.latents(layer: 2, tokens: 128..<131), 72, "MLA layer 2: tokens 128..<131 of 0..<130"),
        (.latents(layer: 2, tokens: -1..<1), 48, "MLA layer 2: tokens -1..<1 of 0..<130"),
        (.latents(layer: 2, tokens: 1..<1), 0, "MLA layer 2: tokens 1..<1 of 0..<130"),
        (.state(layer: 0), 63, "linear layer 0: 63 bytes for a segment of 64"),
        (.latents(layer: 2, tokens: 128..<130), 49, "MLA layer 2: 49 bytes for a segment of 48"),
    ])
    func unknownOrMisshapenSegmentsAreRefused(_ segment: TransferSegment, _ bytes: Int, _ sentence: String) throws {
        var ledger = SegmentLedger(manifest: try makeManifest())
        let error = #expect(throws: TransferRefusal.self) { try ledger.enter(segment, byteCount: bytes) }
        #expect(error?.description == sentence && ledger.byteCount == 0)
    }
}

func makeManifest(positions: Range<Int> = 0..<130, generation: UInt64 = 1) throws -> TransferManifest {
    try TransferManifest(
        fingerprint: "tiny", positions: positions, pageTokens: 64,
        layers: [
            TransferLayer(index: 0, kind: .recurrent, element: .float32, shape: [1, 4, 4]),
            TransferLayer(index: 1, kind: .recurrent, element: .float32, shape: [1, 4, 4]),
            TransferLayer(index: 2, kind: .latent, element: .float32, shape: [6]),
        ], generation: generation)
}
