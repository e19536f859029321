extension StepWork {
    /// The same rows in at most `count` parts: requests in turn, and a prompt that is alone at multiples of a chunk.
    func split(into count: Int) -> [StepWork] {
        guard count > 1 else { return [self] }
        var parts = Array(repeating: StepWork(ranks: ranks.count, each: []), count: count)
        for (rank, groups) in ranks.enumerated() {
            let pieces = groups.count >= count ? groups : groups.flatMap { Self.pieces(of: $0, count: count) }
            for (index, piece) in pieces.enumerated() { parts[index % count].ranks[rank].append(piece) }
        }
        return parts.filter { !$0.isEmpty }
    }

    private static func pieces(of group: RowGroup, count: Int) -> [RowGroup] {
        guard group.isPrefill, group.rows > RankWork.chunk else { return [group] }
        let share = (group.rows + count - 1) / count
        let size = (share + RankWork.chunk - 1) / RankWork.chunk * RankWork.chunk
        return stride(from: 0, to: group.rows, by: size).map { start in
            let rows = min(size, group.rows - start)
            return RowGroup(
                rows: rows, context: group.context + start, isPrefill: true,
                samples: group.samples && start + rows == group.rows)
        }
    }
}
