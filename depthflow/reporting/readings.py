"""How to read each measure's picture, in two sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

READINGS: Mapping[str, str] = {
    "convergence": (
        "Left, how far the direction at each depth is from the final one, and right, how far each block turns it: "
        "medians over samples and tokens, with the band of the middle half. The angle to the final direction is 0 at "
        "the last depth by definition, so convergence shows in how the curve arrives there, and in a speed that falls "
        "below the null's."
    ),
    "coherence": (
        "1 means that all tokens of a sample point the same way, or that all their updates do; 0 that they cancel. "
        "Untrained attention averages tokens too, so a high value says something only where it is above the null's."
    ),
    "update_spectra": (
        "A stable rank of 1 means that a block moves all tokens along one direction; the singular values show how fast "
        "the others fall off. Updates that share a mean have a low rank of their own accord, so compare the null."
    ),
    "phases": (
        "Each cell compares the states after two blocks; the outlined squares are the phases, cut where similarity "
        "drops. Any smooth path makes squares along the diagonal: phases are evidence of training only where the null "
        "is cut elsewhere, or less sharply."
    ),
    "basins": (
        "Each mark is a sample's final direction, each star the center of a basin, in the three dimensions that hold "
        "the most of the directions; the text under the sphere says how much that is. A cluster of endpoints may be "
        "called a basin of attraction only once pushed paths have come back to it, more than they would by themselves."
    ),
    "dmd": (
        "The error of predicting states some blocks ahead with one linear map for all blocks, beside leaving the state "
        "as it is, the best map for that distance, and the best map of each block. One map describes depth well where "
        "its error is near the last of these and far below the first."
    ),
    "perturb": (
        "A gain below 1 means that the pushed path is nearer to the other one than just after the push. A state that "
        "grows turns less under the same push, whatever the blocks do, so only what lies below the dash-dotted curve, "
        "drawn for blocks that do not answer to the push, is a return."
    ),
    "basin_stability": (
        "The share of pushed paths that end in the basin of their own unpushed path, with Wilson's interval, wide for "
        "a basin of few samples. The bar across is the share if no later block answered to the push; only above it "
        "does anything pull paths back. The null's basins are its own, and share no more than numbers with the others."
    ),
    "jacobian": (
        "Above the dotted line at 1 a small change of direction grows, below it shrinks. A map may shrink changes in "
        "the mean over directions and still stretch one of them, so both are drawn. Where states grow, every change of "
        "direction shrinks by the ratio of the norms before and after the block, whatever the block does otherwise."
    ),
    "swap_blocks": (
        "Each cell is the effect of one block put in another's place; the squares are the phases. Neighbouring blocks "
        "are alike in any smooth stack, so the claim that counts is the difference among pairs equally far apart."
    ),
}
