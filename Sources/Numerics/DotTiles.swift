/// Dot products of packed rows with stored rows, several at a time. Every one is the same sum whatever tile computes it:
/// blocks of 64 stored bytes in ascending order, the parts of a block one after the other, sixteen lanes, one fused
/// accumulator, one horizontal sum.
struct DotTile<Stored: StoredLanes> {
    /// Four stored rows.
    struct Rows {
        let first: UnsafeRawPointer
        let second: UnsafeRawPointer
        let third: UnsafeRawPointer
        let fourth: UnsafeRawPointer

        @inline(__always)
        init(_ base: UnsafeRawPointer, step: Int) {
            first = base
            second = base + step
            third = base + 2 * step
            fourth = base + 3 * step
        }

        /// The last of `count` (< 4) rows stands in for those that are not there.
        @inline(__always)
        init(_ base: UnsafeRawPointer, step: Int, count: Int) {
            first = base
            second = base + min(1, count - 1) * step
            third = base + min(2, count - 1) * step
            fourth = base + (count - 1) * step
        }
    }

    /// Four accumulators: one packed row with four stored ones.
    private struct Four {
        var a = Lanes()
        var b = Lanes()
        var c = Lanes()
        var d = Lanes()

        @inline(__always)
        init() {}

        @inline(__always)
        init(_ pointer: UnsafeRawPointer) {
            a = pointer.load(as: Lanes.self)
            b = pointer.load(fromByteOffset: 64, as: Lanes.self)
            c = pointer.load(fromByteOffset: 128, as: Lanes.self)
            d = pointer.load(fromByteOffset: 192, as: Lanes.self)
        }

        @inline(__always)
        mutating func add(_ x: Lanes, _ w: (Lanes, Lanes, Lanes, Lanes)) {
            a.addProduct(x, w.0)
            b.addProduct(x, w.1)
            c.addProduct(x, w.2)
            d.addProduct(x, w.3)
        }

        @inline(__always)
        func keep(_ pointer: UnsafeMutableRawPointer) {
            pointer.storeBytes(of: a, as: Lanes.self)
            pointer.storeBytes(of: b, toByteOffset: 64, as: Lanes.self)
            pointer.storeBytes(of: c, toByteOffset: 128, as: Lanes.self)
            pointer.storeBytes(of: d, toByteOffset: 192, as: Lanes.self)
        }
    }

    @inline(__always)
    private static func lanes(_ rows: Rows, _ offset: Int, _ part: Int) -> (Lanes, Lanes, Lanes, Lanes) {
        (
            Stored.lanes(rows.first + offset, part), Stored.lanes(rows.second + offset, part),
            Stored.lanes(rows.third + offset, part), Stored.lanes(rows.fourth + offset, part)
        )
    }

    // The two below are not inlined: with the horizontal sums in the same function the accumulators do not stay in
    // registers.

    /// Adds `blocks` blocks of one packed row times four stored ones to the four accumulators at `sums`.
    @inline(never)
    static func accumulate1(
        _ x: UnsafePointer<Float>, _ rows: Rows, blocks: Int, _ sums: UnsafeMutableRawPointer, continues: Bool
    ) {
        var four = continues ? Four(sums) : Four()
        for block in 0..<blocks {
            let q = x + block * Stored.blockCount
            @inline(__always)
            func add(_ part: Int) { four.add(load(q + part * laneCount), lanes(rows, 64 * block, part)) }
            // written out, because a loop over the parts is not always unrolled
            add(0)
            if Stored.partCount > 1 { add(1) }
            if Stored.partCount > 2 {
                add(2)
                add(3)
            }
        }
        four.keep(sums)
    }

    /// Adds `blocks` blocks of four packed rows times four stored ones to the sixteen accumulators at `sums`.
    #if WIDE_REGISTERS
        @inline(never)
        static func accumulate4(
            _ x: UnsafePointer<Float>, _ xStride: Int, _ rows: Rows, blocks: Int, _ sums: UnsafeMutableRawPointer,
            continues: Bool
        ) {
            var (s0, s1, s2, s3) =
                continues
                ? (Four(sums), Four(sums + 256), Four(sums + 512), Four(sums + 768)) : (Four(), Four(), Four(), Four())
            for block in 0..<blocks {
                let q = x + block * Stored.blockCount
                @inline(__always)
                func add(_ part: Int) {
                    let w = lanes(rows, 64 * block, part)
                    let p = q + part * laneCount
                    s0.add(load(p), w)
                    s1.add(load(p + xStride), w)
                    s2.add(load(p + 2 * xStride), w)
                    s3.add(load(p + 3 * xStride), w)
                }
                add(0)
                if Stored.partCount > 1 { add(1) }
                if Stored.partCount > 2 {
                    add(2)
                    add(3)
                }
            }
            s0.keep(sums)
            s1.keep(sums + 256)
            s2.keep(sums + 512)
            s3.keep(sums + 768)
        }
    #else
        // Sixteen accumulators do not fit into the registers: one stored row at a time, while some of the packed rows stay
        // in the first-level cache.
        static func accumulate4(
            _ x: UnsafePointer<Float>, _ xStride: Int, _ rows: Rows, blocks: Int, _ sums: UnsafeMutableRawPointer,
            continues: Bool
        ) {
            let run = 1024 / Stored.blockCount
            var first = 0
            repeat {
                let (part, count) = (x + first * Stored.blockCount, min(run, blocks - first))
                let continues = continues || first > 0
                accumulateRow(part, xStride, rows.first + 64 * first, count, sums, continues)
                accumulateRow(part, xStride, rows.second + 64 * first, count, sums + 64, continues)
                accumulateRow(part, xStride, rows.third + 64 * first, count, sums + 128, continues)
                accumulateRow(part, xStride, rows.fourth + 64 * first, count, sums + 192, continues)
                first += run
            } while first < blocks
        }

        /// Four packed rows times one stored row, into every fourth of the accumulators.
        @inline(never)
        private static func accumulateRow(
            _ x: UnsafePointer<Float>, _ xStride: Int, _ row: UnsafeRawPointer, _ blocks: Int,
            _ sums: UnsafeMutableRawPointer, _ continues: Bool
        ) {
            func sum(_ index: Int) -> Lanes { continues ? (sums + 256 * index).load(as: Lanes.self) : Lanes() }
            var (s0, s1, s2, s3) = (sum(0), sum(1), sum(2), sum(3))
            for block in 0..<blocks {
                let q = x + block * Stored.blockCount
                @inline(__always)
                func add(_ part: Int) {
                    let w = Stored.lanes(row + 64 * block, part)
                    let p = q + part * laneCount
                    s0.addProduct(load(p), w)
                    s1.addProduct(load(p + xStride), w)
                    s2.addProduct(load(p + 2 * xStride), w)
                    s3.addProduct(load(p + 3 * xStride), w)
                }
                add(0)
                if Stored.partCount > 1 { add(1) }
                if Stored.partCount > 2 {
                    add(2)
                    add(3)
                }
            }
            sums.storeBytes(of: s0, as: Lanes.self)
            sums.storeBytes(of: s1, toByteOffset: 256, as: Lanes.self)
            sums.storeBytes(of: s2, toByteOffset: 512, as: Lanes.self)
            sums.storeBytes(of: s3, toByteOffset: 768, as: Lanes.self)
        }
    #endif
}
