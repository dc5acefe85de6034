"""One model of several media: images, sounds and texts as the parts of one joint state."""
