"""Programs written for imagen-pytorch run here by changing the import; its checkpoints convert.

    from calotype.interop.imagen_pytorch import Unet, Imagen, ImagenTrainer

In: its arguments (2.1.0), its text embeddings and images in [0, 1]. Out: losses and images of
this library's schedules, samplers, losses and trainer. May import anything above `interop`; nothing
imports it but the command line. Arguments that package ignores are honoured or refused by name.
"""

from calotype.interop.imagen_pytorch.files import load, save
from calotype.interop.imagen_pytorch.imagen import ElucidatedImagen, Imagen
from calotype.interop.imagen_pytorch.presets import BaseUnet64, NullUnet, SRUnet256, SRUnet1024
from calotype.interop.imagen_pytorch.trainer import ImagenTrainer
from calotype.interop.imagen_pytorch.unet import Unet

__all__ = [
    "BaseUnet64",
    "ElucidatedImagen",
    "Imagen",
    "ImagenTrainer",
    "NullUnet",
    "SRUnet256",
    "SRUnet1024",
    "Unet",
    "load",
    "save",
]
