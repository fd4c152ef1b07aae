"""General categories of the classes of a data set: whether a dog that is taken for another dog is still a dog."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unmask.data.dataset import DataError

__all__ = ["Categories", "categories"]


class Categories(NamedTuple):
    """Which group each class belongs to, and what the groups are called."""

    of: Tensor  # (K,) int64, the group of each class
    names: tuple[str, ...]  # of the groups


# First and last class of each range, in the usual order of the 1000 classes.
_IMAGENET = {
    "fish": "0-6 389-397",
    "birds": "7-24 80-100 127-146",
    "amphibians": "25-32",
    "reptiles": "33-68",
    "spiders and other arthropods": "69-79",
    "insects": "300-326",
    "crustaceans": "118-126",
    "other invertebrates": "107-117 327-329",
    "sea mammals": "147-150",
    "dogs": "151-268",
    "wild dogs": "269-275 277-280",
    "cats": "281-293",
    "bears and pandas": "294-297 387-388",
    "other carnivores": "276 298-299 356-362",
    "rabbits and rodents": "330-338",
    "hoofed animals and elephants": "101 339-355 385-386",
    "primates": "365-384",
    "other mammals": "102-106 363-364",
    "vehicles": """
        403-405 407-408 417 428 436 444 450 466 468 472 475 479 484 510-511 535 537 547 554-555 561 565 569 573
        575-576 581 586 595 603 609 612 625 627-628 654 656 661 665 670-671 675 686 690 694 705 717 724 734 751
        757 779-780 785 791 802-803 812 814 817 820 829 833 847 856 864 866-867 870-871 874 880 895 908 913-914""",
    "buildings and structures": """
        406 410 415 421 424-425 437 442 448-449 454 460 467 476 483 489 497-498 500 509 525 536 538 540 557 562
        580 582 624 634 640 645-646 649 660 663 668 672 682 698 706 708 716 718 727 743 762 788 799 819 821 825
        832 839 853 858 860 863 865 873 877 884 888 900 912 915""",
    "furniture and furnishings": """
        423 431 435 453 492-493 495 516 520 526 532 539 548 553 556 559 564 607 619 648 669 703 721 741 750 765
        789 794 797 830-831 846 854 857 861 894 896 904-905""",
    "devices": """
        398 409 426 447 480-482 485 487 508 527-528 530-531 534 545 571 589-590 592 598 604-606 613 620 622
        632-633 635 650-651 662 664 673 681 685 688 704 707 713 732 742 745 753-755 759-761 778 782 786 798 800
        807 810-811 818 823 826-827 835 844-845 848 851 859 872 878 882 886 892 897 902""",
    "kitchenware and containers": """
        412 414 427 438 440-441 455 463 469 473 478 499 503-505 512 519 521 544 550 567 572 588 618 636-637 647
        653 659 666 692 712 719-720 725 728-729 737-738 748 756 766 771 773 790 804 809 813 828 849 868 876 883
        891 893 898-899 901 907 909-910""",
    "clothing and accessories": """
        399-400 411 433 439 443 445 451-452 457 459 461 464-465 474 490 496 501-502 514-515 518 524 529 552 560
        568 570 578 584 591 597 601 608 610 614-615 617 630 638-639 643 652 655 658 667 678-679 689 691 697 715
        735 770 774-775 793 796 806 808 824 834 836-837 841-842 869 879 885 887 903 906 911""",
    "musical instruments": """
        401-402 420 432 486 494 513 541-542 546 558 566 577 579 593-594 641-642 683-684 687 699 714 776 822 875
        881 889""",
    "sports and toys": """
        416 422 429-430 522 543 574 602 611 701-702 722-723 736 746-747 752 768 795 801 805 843 850 852 890""",
    "tools and weapons": """
        413 418 446 456 462 471 477 488 491 506-507 517 523 563 583 587 596 600 616 621 623 626 644 657 674
        676-677 693 695-696 709-710 726 730-731 733 739-740 744 749 758 763-764 767 769 772 777 783-784 787 792
        816 840 855 862""",
    "personal care and supplies": "419 434 470 533 551 585 629 631 680 700 711 838 999",
    "print and signs": "458 549 781 916-922",
    "food and drink": "923-957 959-969",
    "plants and fungi": "958 984-998",
    "landscapes and natural objects": "599 815 970-980",
    "people": "981-983",
}
_CIFAR10 = {"vehicles": "0-1 8-9", "animals": "2-7"}

_KNOWN = {"imagenet": _IMAGENET, "imagenet-sample": _IMAGENET, "cifar10": _CIFAR10}


def categories(data: str) -> Categories:
    """The general categories of "imagenet", also called "imagenet-sample", or of "cifar10".

    Animals are grouped by kinship, things by use; a thing of two uses is in the group of its main one. The
    order of ImageNet's classes is the usual one, from tench, 0, to toilet tissue, 999.

    Raises :class:`DataError` for other data.

    >>> of, names = categories("imagenet")
    >>> names[of[281]], names[of[291]], names[of[207]]  # tabby, lion, golden retriever
    ('cats', 'cats', 'dogs')
    """
    if data not in _KNOWN:
        raise DataError(f"there are no general categories of '{data}', only of {', '.join(_KNOWN)}")
    groups = {name: _numbers(ranges) for name, ranges in _KNOWN[data].items()}
    of = torch.full((sum(map(len, groups.values())),), -1)
    for group, classes in enumerate(groups.values()):
        of[classes] = group
    return Categories(of, tuple(groups))


def _numbers(ranges: str) -> list[int]:
    bounds = [[int(bound) for bound in part.split("-")] for part in ranges.split()]
    return [number for first, *last in bounds for number in range(first, (last or [first])[0] + 1)]
