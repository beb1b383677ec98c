import numpy as np

from calotype.cascade.pixels import contact_sheet


def _flat(*greys):
    return [np.full((2, 3, 3), grey, dtype=np.uint8) for grey in greys]


def test_images_stand_in_a_nearly_square_sheet():
    sheet = contact_sheet(_flat(1, 2, 3, 4, 5))
    assert sheet.shape == (4, 9, 3)
    assert sheet[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 255]]


def test_columns_gap_and_paper():
    sheet = contact_sheet(_flat(1, 2, 3), columns=2, gap=1, paper=244)
    assert sheet.shape == (5, 7, 3)
    assert sheet[..., 0].tolist() == [
        [1, 1, 1, 244, 2, 2, 2],
        [1, 1, 1, 244, 2, 2, 2],
        [244] * 7,
        [3, 3, 3, 244, 244, 244, 244],
        [3, 3, 3, 244, 244, 244, 244],
    ]
