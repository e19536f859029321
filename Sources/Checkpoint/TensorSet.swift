import ContentIdentity
import Foundation
import Glibc
import Numerics

/// Where the tensors that a service owns are put.
public enum WeightPlacement: String, Sendable {
    /// Copied when they take at most half of the memory that is available, mapped otherwise.
    case automatic = "auto"
    /// Read into memory of huge pages. A decode step reads most weights once, and with 4 KiB pages looking up addresses
    /// costs it a third of the bandwidth.
    case copied = "copy"
    /// The files' pages are mapped: shared between processes, read when they are touched, dropped under pressure.
    case mapped = "map"
}

/// The tensors one service owns, copied or mapped read-only; small ones copied to fp32 on demand.
///
/// Nothing else of the files is read or mapped. Matrices and vectors handed out live as long as this object.
public final class TensorSet {
    private struct Region {
        let base: UnsafeMutableRawPointer
        let byteCount: Int
    }

    private let checkpoint: Checkpoint
    private var regions: [Region] = []
    private var pointers: [String: UnsafeRawPointer] = [:]
    private var copies: [UnsafeMutablePointer<Float>] = []

    /// Bytes of the tensors that are mapped or copied.
    public private(set) var byteCount = 0

    /// Maps the tensors of `checkpoint` whose name `owns` accepts.
    ///
    /// - Throws: `CheckpointError` when a file cannot be read or memory does not suffice.
    public init(_ checkpoint: Checkpoint, owns: (String) -> Bool) throws(CheckpointError) {
        self.checkpoint = checkpoint
        let names = checkpoint.tensors.filter { owns($0.key) }
        if Self.copies(checkpoint.placement, names.values.reduce(0) { $0 + $1.entry.byteCount }) {
            try copy(names)
            return
        }
        for file in checkpoint.files.indices {
            let owned = names.filter { $0.value.file == file }.sorted { $0.value.entry.offset < $1.value.entry.offset }
            try map(owned.map { ($0.key, $0.value.entry) }, of: checkpoint.files[file])
        }
    }

    deinit {
        for region in regions { munmap(region.base, region.byteCount) }
        for copy in copies { copy.deallocate() }
    }

    /// True when the checkpoint has the tensor and this set owns it.
    public func contains(_ name: String) -> Bool { pointers[name] != nil }

    /// The first of `names` that is there, so that aliases can be asked for in order.
    ///
    /// - Throws: `CheckpointError` that names the tensor: none of them is there, or its shape, type or values are
    ///   others.
    public func matrix(_ names: String..., rows: Int, columns: Int) throws(CheckpointError) -> WeightMatrix {
        let name = names.first(where: contains) ?? names[0]
        let (entry, pointer) = try tensor(name, shape: [rows, columns])
        let type: ElementType
        switch entry.storedType {
        case "F32": type = .float32
        case "BF16": type = .bfloat16
        case "F8_E4M3": type = .float8E4M3
        default:
            throw CheckpointError(.tensor, "tensor \(name) has dtype \(entry.storedType), not F32, BF16 or F8_E4M3")
        }
        var scales: UnsafePointer<Float>?
        if type == .float8E4M3 {
            let scaleName = String(name.dropLast(".weight".count)) + ".weight_scale"
            scales = try vector(scaleName, count: rows)
            if let index = Float8E4M3.firstNaN(pointer, rows * columns) {
                throw CheckpointError(.tensor, "tensor \(name) holds a NaN in row \(index / columns)")
            }
        }
        return WeightMatrix(rows: rows, columns: columns, elementType: type, elements: pointer, scales: scales)
    }

    /// A small tensor of `count` elements, [count] or [count, 1], as fp32.
    ///
    /// - Throws: `CheckpointError` that names the tensor: none of them is there, or its shape or type is another.
    public func vector(_ names: String..., count: Int) throws(CheckpointError) -> UnsafePointer<Float> {
        let name = names.first(where: contains) ?? names[0]
        let isColumn = checkpoint.tensors[name]?.entry.shape == [count, 1]
        let (entry, pointer) = try tensor(name, shape: isColumn ? [count, 1] : [count])
        let copy = UnsafeMutablePointer<Float>.allocate(capacity: count)
        copies.append(copy)
        for i in 0..<count {
            switch entry.storedType {
            case "F32": copy[i] = pointer.loadUnaligned(fromByteOffset: 4 * i, as: Float.self)
            case "BF16":
                copy[i] = BFloat16(bitPattern: pointer.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self)).float
            default:
                throw CheckpointError(.tensor, "tensor \(name) has dtype \(entry.storedType), not F32 or BF16")
            }
        }
        return UnsafePointer(copy)
    }

    private func tensor(_ name: String, shape: [Int]) throws(CheckpointError) -> (TensorEntry, UnsafeRawPointer) {
        guard let entry = checkpoint.tensors[name]?.entry, let pointer = pointers[name] else {
            throw CheckpointError(.tensor, "tensor \(name) is missing")
        }
        guard entry.shape == shape else {
            throw CheckpointError(.tensor, "tensor \(name) has shape \(entry.shape), the configuration needs \(shape)")
        }
        return (entry, pointer)
    }

    /// Maps runs of neighbouring tensors as one region each; a gap of a page or more starts a new one.
    private func map(_ tensors: [(name: String, entry: TensorEntry)], of file: URL) throws(CheckpointError) {
        guard !tensors.isEmpty else { return }
        let descriptor = try open(file)
        defer { close(descriptor) }
        let page = 4096
        var index = 0
        while index < tensors.count {
            let start = tensors[index].entry.offset / page * page
            var end = tensors[index].entry.offset + tensors[index].entry.byteCount
            var next = index + 1
            while next < tensors.count, tensors[next].entry.offset < (end + page - 1) / page * page + page {
                end = tensors[next].entry.offset + tensors[next].entry.byteCount
                next += 1
            }
            let length = max(1, end - start)
            guard let base = mmap(nil, length, PROT_READ, MAP_PRIVATE, descriptor, off_t(start)), base != MAP_FAILED
            else {
                throw CheckpointError(.unreadable, "\(file.lastPathComponent): \(length) bytes cannot be mapped")
            }
            regions.append(Region(base: base, byteCount: length))
            for (name, entry) in tensors[index..<next] {
                pointers[name] = UnsafeRawPointer(base + (entry.offset - start))
                byteCount += entry.byteCount
            }
            index = next
        }
    }

    // MARK: Copies

    private static func copies(_ placement: WeightPlacement, _ byteCount: Int) -> Bool {
        guard placement == .automatic else { return placement == .copied }
        return byteCount <= MachineMemory.now().available / 2
    }

    /// Reads all tensors into one region, each from a multiple of 64 bytes on.
    private func copy(_ tensors: [String: Checkpoint.Location]) throws(CheckpointError) {
        let aligned = tensors.values.reduce(0) { $0 + ($1.entry.byteCount + 63) / 64 * 64 }
        let total = tensors.values.reduce(0) { $0 + $1.entry.byteCount }
        let hugePage = 2 << 20
        let length = (aligned + hugePage - 1) / hugePage * hugePage + hugePage
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let base = mmap(nil, length, PROT_READ | PROT_WRITE, flags, -1, 0), base != MAP_FAILED else {
            throw CheckpointError(.unreadable, "\(length) bytes of memory for the weights cannot be had")
        }
        regions.append(Region(base: base, byteCount: length))
        madvise(base, length, MADV_HUGEPAGE)
        var target = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: base) + 2_097_151) & ~2_097_151) ?? base
        let inOrder = tensors.sorted { ($0.value.file, $0.value.entry.offset) < ($1.value.file, $1.value.entry.offset) }
        for file in checkpoint.files.indices {
            let owned = inOrder.filter { $0.value.file == file }
            guard !owned.isEmpty else { continue }
            let descriptor = try open(checkpoint.files[file])
            defer { close(descriptor) }
            let new = Set(owned.map(\.key).filter { checkpoint.ledger?.isKnown($0) == false })
            let worker = new.isEmpty ? nil : DigestWorker()
            // What is not read to its end is unmapped when this throws.
            defer { if let worker { checkpoint.ledger?.add(worker.digests(), of: file) } }
            for (name, location) in owned {
                let worker = new.contains(name) ? worker : nil
                try read(descriptor, location.entry, into: target, name) { block in
                    worker?.append(block)
                    byteCount += block.count
                    checkpoint.onProgress?(LoadProgress(.loading, done: byteCount, total: total))
                }
                worker?.finish(name)
                pointers[name] = UnsafeRawPointer(target)
                target += (location.entry.byteCount + 63) / 64 * 64
            }
        }
        mprotect(base, length, PROT_READ)
    }

    /// Reads a tensor, and calls `advance` with each block that is there.
    private func read(
        _ descriptor: Int32, _ entry: TensorEntry, into target: UnsafeMutableRawPointer, _ name: String,
        advance: (UnsafeRawBufferPointer) -> Void
    ) throws(CheckpointError) {
        var done = 0
        while done < entry.byteCount {
            let block = UnsafeMutableRawBufferPointer(
                start: target + done, count: min(BlockDigests.byteCount, entry.byteCount - done))
            let count = BlockReader.read(descriptor, offset: entry.offset + done, into: block)
            guard count == block.count else {
                throw CheckpointError(
                    .unreadable, "tensor \(name) cannot be read after \(done + count) of \(entry.byteCount) bytes")
            }
            done += count
            advance(UnsafeRawBufferPointer(block))
        }
    }

    private func open(_ file: URL) throws(CheckpointError) -> Int32 {
        let descriptor = Glibc.open(file.path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw CheckpointError(.unreadable, "\(file.lastPathComponent) cannot be opened")
        }
        return descriptor
    }
}
