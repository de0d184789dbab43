//! [`Segments`]: where the texts of packed rows begin and end.

use std::ops::Range;

/// The texts that lie one after the other in every row of a batch.
///
/// In a forward with segments ([`CausalLm::hidden_packed`](crate::CausalLm::hidden_packed)) a token
/// sees its own text only, and positions begin at 0 in every text: a row gives what its texts would
/// give apart. What the texts leave of a row is padding, and a segment of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    rows: Vec<Vec<usize>>,
    length: usize,
}

impl Segments {
    /// Segments from the lengths of every row's texts, in order. Rows are as long as the longest.
    pub fn new(rows: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let mut rows: Vec<Vec<usize>> = rows.into_iter().collect();
        let sum = |row: &Vec<usize>| row.iter().sum::<usize>();
        let length = rows.iter().map(sum).max().unwrap_or(0);
        for row in &mut rows {
            row.push(length - sum(row));
            row.retain(|texts| *texts > 0);
        }
        Self { rows, length }
    }

    /// Rows and tokens of a row: the shape of the ids that these segments belong to.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows.len(), self.length]
    }

    /// Tokens of the longest segment.
    pub(crate) fn longest(&self) -> usize {
        self.rows.iter().flatten().copied().max().unwrap_or(0)
    }

    /// Position of every token within its text, row after row: `[batch · length]`.
    pub(crate) fn positions(&self) -> Vec<i64> {
        let lengths = self.rows.iter().flatten();
        lengths.flat_map(|length| 0..*length as i64).collect()
    }

    /// Where every segment lies when rows follow each other.
    pub(crate) fn ranges(&self) -> Vec<Range<usize>> {
        let row = |(row, lengths): (usize, &Vec<usize>)| {
            let start = row * self.length;
            ranges(lengths)
                .map(move |range| start + range.start..start + range.end)
                .collect::<Vec<_>>()
        };
        self.rows.iter().enumerate().flat_map(row).collect()
    }

    /// Added to the scores: 0 where query `i` sees key `j` (the same text, `i − window < j ≤ i`), −∞
    /// elsewhere; `[batch, length, length]`.
    pub(crate) fn mask(&self, window: Option<usize>) -> Vec<f32> {
        let window = window.unwrap_or(usize::MAX);
        let mut mask = vec![f32::NEG_INFINITY; self.rows.len() * self.length * self.length];
        for (row, mask) in self
            .rows
            .iter()
            .zip(mask.chunks_mut((self.length * self.length).max(1)))
        {
            for segment in ranges(row) {
                for query in segment.clone() {
                    let first = segment.start.max((query + 1).saturating_sub(window));
                    let line = query * self.length;
                    mask[line + first..=line + query].fill(0.0);
                }
            }
        }
        mask
    }
}

/// Where each of the segments lies, for segments of these lengths.
fn ranges(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |end, length| {
        let start = *end;
        *end += length;
        Some(start..*end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x` where a query (line) sees a key (column).
    fn drawn(segments: &Segments, window: Option<usize>) -> Vec<String> {
        let [_, length] = segments.dims();
        let mask = segments.mask(window);
        mask.chunks(length)
            .map(|line| {
                line.iter()
                    .map(|v| if *v == 0.0 { 'x' } else { '.' })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_token_sees_its_own_text_up_to_itself() {
        let segments = Segments::new([vec![2, 3], vec![1, 2]]);
        assert_eq!(segments.dims(), [2, 5]);
        assert_eq!(segments.longest(), 3);
        assert_eq!(segments.positions(), [0, 1, 0, 1, 2, 0, 0, 1, 0, 1]);
        let expected = [
            "x....", "xx...", "..x..", "..xx.", "..xxx", //
            "x....", ".x...", ".xx..", "...x.", "...xx",
        ];
        assert_eq!(drawn(&segments, None), expected);
        assert_eq!(drawn(&segments, Some(3)), expected);
        assert_eq!(drawn(&segments, Some(2))[4], "...xx");
        assert_eq!(drawn(&segments, Some(1))[4], "....x");
    }

    #[test]
    fn empty_texts_are_none() {
        let segments = Segments::new([vec![0, 2, 0, 1]]);
        assert_eq!(segments, Segments::new([vec![2, 1]]));
        assert_eq!(Segments::new([]).dims(), [0, 0]);
        assert!(Segments::new([]).mask(None).is_empty());
    }
}
