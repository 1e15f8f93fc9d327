"""A network as a user writes it: a Linen module without `mean` and `std`."""

import flax.linen as nn


class Network(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        features = nn.relu(nn.Conv(4, (3, 3))(features))
        return nn.Dense(self.num_classes)(features.mean((1, 2)))
