from __future__ import annotations

import pytest

from tests.needs import need
from unmask.data import DataError, load
from unmask.data.categories import _CIFAR10, _IMAGENET, _numbers, categories


@pytest.mark.parametrize(("groups", "classes"), [(_IMAGENET, 1000), (_CIFAR10, 10)])
def test_each_class_is_in_one_group(groups: dict[str, str], classes: int) -> None:
    listed = [number for ranges in groups.values() for number in _numbers(ranges)]
    assert sorted(listed) == list(range(classes))


def test_groups_of_the_classes() -> None:
    of, names = categories("imagenet")
    assert of.shape == (1000,)
    assert of.unique().tolist() == list(range(len(names)))
    assert categories("imagenet-sample").of.equal(of)
    assert (of == names.index("dogs")).sum() == 118
    of, names = categories("cifar10")
    animals = {"bird", "cat", "deer", "dog", "frog", "horse"}
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert [names[group] == "animals" for group in of] == [name in animals for name in classes]


KNOWN = {
    "fish": "goldfish|great white shark|anemone fish|stingray",
    "birds": "cock|ostrich|bald eagle|peacock|goose|king penguin|flamingo|albatross|kite",
    "amphibians": "axolotl|bullfrog|tailed frog",
    "reptiles": "loggerhead|triceratops|Indian cobra|sidewinder|African crocodile",
    "spiders and other arthropods": "tarantula|scorpion|trilobite|centipede",
    "insects": "bee|ant|monarch|tiger beetle|lycaenid|fly",
    "crustaceans": "Dungeness crab|isopod|hermit crab",
    "other invertebrates": "jellyfish|chambered nautilus|starfish|sea cucumber",
    "sea mammals": "grey whale|sea lion",
    "dogs": "Chihuahua|golden retriever|Mexican hairless|pug|collie",
    "wild dogs": "timber wolf|dingo|African hunting dog|red fox|grey fox",
    "cats": "tabby|Egyptian cat|cougar|cheetah|lion",
    "bears and pandas": "brown bear|sloth bear|giant panda|lesser panda",
    "other carnivores": "hyena|mongoose|meerkat|weasel|badger",
    "rabbits and rodents": "hare|hamster|guinea pig|beaver",
    "hoofed animals and elephants": "zebra|hog|llama|African elephant|tusker|hippopotamus",
    "primates": "orangutan|indri|Madagascar cat|baboon",
    "other mammals": "koala|platypus|armadillo|three-toed sloth",
    "vehicles": "airliner|ambulance|school bus|canoe|yawl|warplane|mountain bike|pickup|steam locomotive|car wheel",
    "buildings and structures": "castle|church|yurt|suspension bridge|barn|library|greenhouse",
    "furniture and furnishings": "desk|throne|rocking chair|quilt|table lamp|wardrobe|bathtub",
    "devices": "laptop|analog clock|toaster|refrigerator|television|iPod|stethoscope",
    "kitchenware and containers": "frying pan|teapot|wok|backpack|wine bottle|bucket|coffee mug",
    "clothing and accessories": "kimono|cowboy hat|running shoe|Windsor tie|abaya|sock|wig",
    "musical instruments": "cello|violin|accordion|grand piano|steel drum",
    "sports and toys": "basketball|teddy|volleyball|ski|jigsaw puzzle",
    "tools and weapons": "hammer|revolver|power drill|screwdriver|assault rifle|nail",
    "personal care and supplies": "lipstick|toilet tissue|Band Aid",
    "print and signs": "comic book|street sign|traffic light|menu",
    "food and drink": "pizza|broccoli|Granny Smith|red wine|eggnog|guacamole|cup",
    "plants and fungi": "daisy|acorn|agaric|corn|bolete",
    "landscapes and natural objects": "alp|volcano|seashore|geyser",
    "people": "ballplayer|groom|scuba diver",
}


def test_well_known_classes_by_name() -> None:
    need("imagenet-sample")
    classes = [name.split(",")[0] for name in load("imagenet-sample", n=1).classes]
    of, names = categories("imagenet")
    assert set(KNOWN) == set(names)
    for group, members in KNOWN.items():
        for member in members.split("|"):
            assert names[of[classes.index(member)]] == group, member


def test_other_data_is_refused() -> None:
    with pytest.raises(DataError, match="no general categories of 'mnist', only of imagenet"):
        categories("mnist")
